"""Hands back shards before all their lines are done."""

import asyncio

from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.open_batch import OpenBatches
from tidegate.processor.dispatch.open_shard import OpenShard, OpenShardState
from tidegate.processor.leases.renewer import LeaseRenewer
from tidegate.processor.write_gate import WriteGate
from tidegate.pubsub.base import WORK


class ShardReturner:
    """Hands back the shards that this processor stops working on."""

    def __init__(
        self,
        context: ProcessorContext,
        open_batches: OpenBatches,
        renewer: LeaseRenewer,
        gate: WriteGate,
    ) -> None:
        self._context = context
        self._open_batches = open_batches
        self._renewer = renewer
        self._gate = gate

    def return_all(self, deadline: float) -> None:
        """Send nothing more of any batch; cancel attempts in flight at `deadline`."""
        for open_batch in self._open_batches.by_id.values():
            for shard in open_batch.shards.values():
                if shard.state is OpenShardState.RUNNING:
                    shard.state = OpenShardState.RETURNING
                shard.cancel_attempts_at(deadline)
            open_batch.changed.set()

    def return_unserved(self) -> None:
        """Return the shards of endpoints of whose limit this processor has no part."""
        for open_batch in self._open_batches.by_id.values():
            for shard in open_batch.shards.values():
                served = shard.endpoint is None or shard.endpoint.has_part
                if shard.state is OpenShardState.RUNNING and not served:
                    shard.state = OpenShardState.RETURNING
                    open_batch.changed.set()

    async def hand_back(self) -> None:
        """Hand back the returning shards whose results are all committed."""
        for open_batch in list(self._open_batches.by_id.values()):
            for shard in list(open_batch.shards.values()):
                if shard.state is OpenShardState.RETURNING and shard.is_settled:
                    open_batch.close(shard, OpenShardState.CLOSED)
                    await self._return(shard)
                    # Not earlier: a claim that expires meanwhile would count as a crash.
                    self._renewer.remove(shard.claim)
                    self._context.pubsub.publish(WORK)

    async def _return(self, shard: OpenShard) -> None:
        endpoint = shard.endpoint
        wait = endpoint.pause_left(asyncio.get_running_loop().time()) if endpoint else 0.0

        async def ask() -> None:
            # The shard loop waits here until the ledger answers. It is not deadlocked, and its
            # other claims must not expire.
            self._renewer.mark_progress()
            await self._context.store.hand_back([shard.claim], wait_seconds=wait)

        await self._gate.retry_until_answered(ask)
