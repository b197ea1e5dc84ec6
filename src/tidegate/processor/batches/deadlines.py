"""Batches that are cancelled or past their window: nothing more of them is sent (PROTOCOL 14)."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from tidegate.domain.batch import Status
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.dispatcher import Dispatcher
from tidegate.processor.dispatch.open_batch import OpenBatch
from tidegate.processor.dispatch.open_batches import OpenBatches
from tidegate.processor.dispatch.open_shard import OpenShardState
from tidegate.processor.leases.ledger_clock import LedgerClock


class DeadlineWatcher:
    """Ends the open batches that were cancelled or whose window has closed."""

    def __init__(
        self,
        context: ProcessorContext,
        open_batches: OpenBatches,
        dispatcher: Dispatcher,
        ledger_clock: LedgerClock,
    ) -> None:
        self._context = context
        self._open_batches = open_batches
        self._dispatcher = dispatcher
        self._ledger_clock = ledger_clock

    def watch(self, statuses: Mapping[str, Status]) -> None:
        """End what is past its window by the ledger's clock, or cancelled by these statuses."""
        self._end_expired(asyncio.get_running_loop().time())
        for batch_id, status in statuses.items():
            current = self._open_batches.runs.get(batch_id)
            if current is not None and status is Status.CANCELLING:
                current.batch = replace(current.batch, status=status)
                self._end(current)

    def _end_expired(self, now: float) -> None:
        """Send nothing of a batch that may be past its window, and end what certainly is."""
        clock = self._ledger_clock
        for run in list(self._open_batches.runs.values()):
            run.update_deadline(clock.at_most(now))
            if clock.at_least(now) >= run.batch.expires_at:
                self._end(run)

    def _end(self, run: OpenBatch) -> None:
        """Send nothing more; give what is in flight its time to land."""
        loop = asyncio.get_running_loop()
        for shard in list(run.shards.values()):
            if shard.state in {OpenShardState.RUNNING, OpenShardState.RETURNING}:
                shard.state = OpenShardState.ENDING
                shard.cut_flights(loop.time() + self._context.settings.drain.drain_seconds)
                self._dispatcher.settle_shard(run, shard)
