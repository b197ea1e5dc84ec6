"""Shards that go back to the ledger before all their lines are done."""

import asyncio

from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.open_batches import OpenBatches
from tidegate.processor.dispatch.open_shard import OpenShard, OpenShardState
from tidegate.processor.leases.renewer import LeaseRenewer
from tidegate.processor.retrying import retry_until_answered
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

    def return_all(self, cut_at: float) -> None:
        """Send nothing more of any batch; what is in flight has until `cut_at` to land."""
        for run in self._open_batches.runs.values():
            for shard in run.shards.values():
                if shard.state is OpenShardState.RUNNING:
                    shard.state = OpenShardState.RETURNING
                shard.cut_flights(cut_at)
            run.changed.set()

    def return_unserved(self) -> None:
        """Let others run the lines of endpoints of whose limit no part is ours."""
        for run in self._open_batches.runs.values():
            for shard in run.shards.values():
                served = shard.endpoint is None or shard.endpoint.has_part
                if shard.state is OpenShardState.RUNNING and not served:
                    shard.state = OpenShardState.RETURNING
                    run.changed.set()

    async def hand_back(self) -> None:
        """Hand back the shards of which nothing is in flight and everything is committed."""
        for run in list(self._open_batches.runs.values()):
            for shard in list(run.shards.values()):
                if shard.state is OpenShardState.RETURNING and shard.is_settled:
                    run.close(shard, OpenShardState.CLOSED)
                    await self._return(shard)
                    # Only now: a claim that expires meanwhile would count as lost by a crash.
                    self._renewer.remove(shard.claim)
                    self._context.pubsub.publish(WORK)

    async def _return(self, shard: OpenShard) -> None:
        endpoint = shard.endpoint
        wait = endpoint.pause_left(asyncio.get_running_loop().time()) if endpoint else 0.0

        async def ask() -> None:
            # The shard loop waits here as long as the ledger refuses: it is not dead-locked, and
            # what it holds besides must not expire.
            self._renewer.mark_progress()
            await self._context.store.hand_back([shard.claim], wait_seconds=wait)

        await retry_until_answered(ask, self._context.rng, self._gate)
