"""Ends batches that are cancelled or past their window (PROTOCOL 14)."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from tidegate.domain.batch import Status
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.dispatcher import Dispatcher
from tidegate.processor.dispatch.open_batch import OpenBatch, OpenBatches
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
        """End batches past their window by the ledger's clock, or cancelled by these statuses."""
        self._end_expired(asyncio.get_running_loop().time())
        for batch_id, status in statuses.items():
            current = self._open_batches.by_id.get(batch_id)
            if current is not None and status is Status.CANCELLING:
                current.batch = replace(current.batch, status=status)
                self._end(current)

    def _end_expired(self, now: float) -> None:
        """Send nothing of a batch that may be past its window; end those that certainly are."""
        clock = self._ledger_clock
        for open_batch in list(self._open_batches.by_id.values()):
            open_batch.update_deadline(clock.at_most(now))
            if clock.at_least(now) >= open_batch.batch.expires_at:
                self._end(open_batch)

    def _end(self, open_batch: OpenBatch) -> None:
        """Send nothing more; let attempts in flight finish within the drain time."""
        loop = asyncio.get_running_loop()
        for shard in list(open_batch.shards.values()):
            if shard.state in {OpenShardState.RUNNING, OpenShardState.RETURNING}:
                shard.state = OpenShardState.ENDING
                shard.cancel_attempts_at(loop.time() + self._context.settings.drain.drain_seconds)
                self._dispatcher.settle_shard(open_batch, shard)
