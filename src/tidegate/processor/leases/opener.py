"""Opens claimed shards: reads their lines and adds them to their batch."""

import asyncio
import math
from collections.abc import Collection, Sequence

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim
from tidegate.domain.errors import BlobMissing, StorageFull
from tidegate.domain.ledger.values import ClaimedShard, ClaimedShards
from tidegate.processor.committer import Committers
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.dispatcher import Dispatcher
from tidegate.processor.dispatch.open_batch import OpenBatch, OpenBatches
from tidegate.processor.dispatch.open_shard import OpenShard, OpenShardState
from tidegate.processor.dispatch.quarantine import Quarantine
from tidegate.processor.leases.ledger_clock import LedgerClock
from tidegate.processor.leases.renewer import LeaseRenewer
from tidegate.processor.stop_deadline import StopDeadline
from tidegate.wire.plan_format import unpack_all

MISSING_PLAN_SECONDS = 30.0
PLAN_MISSING = "the plan of this batch can't be read: the operator has to restore it"


class ShardOpener:
    """Opens the shards that the ledger granted."""

    def __init__(  # noqa: PLR0913 -- its collaborators, given once
        self,
        context: ProcessorContext,
        *,
        open_batches: OpenBatches,
        committers: Committers,
        dispatcher: Dispatcher,
        quarantine: Quarantine,
        renewer: LeaseRenewer,
        ledger_clock: LedgerClock,
        stop: StopDeadline,
    ) -> None:
        self._context = context
        self._open_batches = open_batches
        self._committers = committers
        self._dispatcher = dispatcher
        self._quarantine = quarantine
        self._renewer = renewer
        self._ledger_clock = ledger_clock
        self._stop = stop
        self._plan_missing_until: dict[str, float] = {}

    def lacks_plan(self, batch_id: str, now: float) -> bool:
        """Return whether the plan of a batch could not be read a short time ago."""
        return now < self._plan_missing_until.get(batch_id, -math.inf)

    async def open_all(
        self, granted: Sequence[ClaimedShards], ending: Collection[str]
    ) -> list[Claim]:
        """Open the granted shards; return the claims for which no sandbox is free.

        `ending` are the batches that are cancelled or expired by the ledger. The claim of a shard
        that can't be opened is not renewed, so that other processors get it.

        Raises:
            StorageFull: a plan can't be read now; every shard that is not open was handed back.
        """
        waiting = [(one.batch, claimed) for one in granted for claimed in one.shards]
        without_sandbox: list[Claim] = []
        self._renewer.add([claimed.claim for _, claimed in waiting])
        for _, claimed in waiting:  # Before their plans are read: that can take long.
            self._open_batches.supersede(claimed.claim)
        try:
            while waiting:
                batch, claimed = waiting[0]
                self._context.observer.on_claim("shard")
                is_over = self._is_over(batch, ending)
                if self._needs_sandbox(claimed, is_over=is_over) and self._quarantine.room <= 0:
                    self._renewer.remove(claimed.claim)
                    without_sandbox.append(claimed.claim)
                else:
                    await self._open(batch, claimed, ending)
                waiting.pop(0)
        except StorageFull:
            # Usually too many open files. An expired claim would count as lost by a crash.
            over = [*without_sandbox, *(claimed.claim for _, claimed in waiting)]
            await self._context.store.hand_back(over)
            raise
        finally:
            for _, claimed in waiting:
                self._renewer.remove(claimed.claim)
        return without_sandbox

    def _needs_sandbox(self, claimed: ClaimedShard, *, is_over: bool) -> bool:
        """Return whether its lines are to be sent one at a time, each in a sandbox."""
        if not claimed.shard.is_quarantined or self._stop.is_set() or is_over:
            return False
        return self._context.routes.find(claimed.shard.plan.model) is not None

    async def _open(self, batch: Batch, claimed: ClaimedShard, ending: Collection[str]) -> None:
        plan = claimed.shard.plan
        assert batch.plan_blob is not None, batch.id
        assert batch.id in ending or not self._context.ends_only, "its lines may still run"
        try:
            data = await self._context.blobs.read(batch.plan_blob, plan.offset, plan.length)
        except BlobMissing:
            await self._hand_back_planless(batch, claimed)
            return
        loop = asyncio.get_running_loop()
        endpoint = self._context.routes.find(plan.model)
        shard = OpenShard(claimed, list(unpack_all(data)), endpoint=endpoint, opened_at=loop.time())
        is_new = batch.id not in self._open_batches.by_id
        open_batch = self._open_batches.open(batch, shard)
        if is_new:
            self._committers.start(open_batch)
        open_batch.update_deadline(self._ledger_clock.at_most(loop.time()))
        if self._stop.is_set():
            shard.state = OpenShardState.RETURNING
        elif self._is_over(batch, ending):
            shard.state = OpenShardState.ENDING
            self._dispatcher.settle_shard(open_batch, shard)
        elif endpoint is None:
            reject_all(open_batch, shard)
        elif shard.is_quarantined:
            self._quarantine_shard(open_batch, shard)
        self._dispatcher.pump()

    def _quarantine_shard(self, open_batch: OpenBatch, shard: OpenShard) -> None:
        """Run the lines of a shard one at a time, if a sandbox is still free for it."""
        if self._quarantine.room > 0:
            self._quarantine.admit(shard)
            self._quarantine.fail_known_poison_lines(open_batch, shard)
        else:
            shard.state = OpenShardState.RETURNING

    def _is_over(self, batch: Batch, ending: Collection[str]) -> bool:
        # Our estimate of the ledger's clock may be behind its own answer. Then a shard that was
        # claimed to be ended would be handed back, and claimed again immediately.
        if batch.is_cancelling or batch.id in ending:
            return True
        now = asyncio.get_running_loop().time()
        return self._ledger_clock.at_least(now) >= batch.expires_at

    async def _hand_back_planless(self, batch: Batch, claimed: ClaimedShard) -> None:
        # Either the batch ended meanwhile (then the claim is void), or the plan is gone: its lines
        # wait until the blob is restored, and must not be claimed in a tight loop. A batch that has
        # to be ended is on offer again immediately, so this processor has to remember it.
        now = asyncio.get_running_loop().time()
        waits = {key: until for key, until in self._plan_missing_until.items() if until > now}
        self._plan_missing_until = {**waits, batch.id: now + MISSING_PLAN_SECONDS}
        self._renewer.remove(claimed.claim)
        self._context.observer.on_plan_missing(batch)
        await self._context.store.hand_back([claimed.claim], wait_seconds=MISSING_PLAN_SECONDS)
        await self._context.store.note_waiting(batch.id, PLAN_MISSING)


def reject_all(open_batch: OpenBatch, shard: OpenShard) -> None:
    """Give every open line of a shard the error that no upstream serves its model."""
    for index in sorted(shard.undecided):
        open_batch.add_error(
            shard,
            index,
            code="model_not_found",
            message=f"The model '{shard.model}' is not served by any configured upstream.",
        )
    shard.drop_waiting()
