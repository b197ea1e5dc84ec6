"""Polls the ledger for work: one read for everything that a processor needs to know."""

import asyncio
from collections.abc import Collection, Mapping

from tidegate.domain.batch import Status
from tidegate.domain.ledger.values import Poll
from tidegate.processor.batches.deadlines import DeadlineWatcher
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.open_batch import OpenBatches
from tidegate.processor.leases.ledger_clock import LedgerClock
from tidegate.processor.leases.membership import Membership
from tidegate.processor.stop_deadline import StopDeadline
from tidegate.processor.wakeups import Wakeups

OFFERS_MAX = 256


class LedgerPoller:
    """Polls the ledger, and passes the answer on to the parts of the processor.

    Attributes:
        answered_at: when the ledger answered last, in seconds of the event loop.
    """

    def __init__(  # noqa: PLR0913 -- the receivers of an answer, given once
        self,
        context: ProcessorContext,
        *,
        open_batches: OpenBatches,
        membership: Membership,
        deadlines: DeadlineWatcher,
        ledger_clock: LedgerClock,
        wakeups: Wakeups,
        stop: StopDeadline,
    ) -> None:
        self._context = context
        self._open_batches = open_batches
        self._membership = membership
        self._deadlines = deadlines
        self._ledger_clock = ledger_clock
        self._wakeups = wakeups
        self._stop = stop
        self.answered_at = float("-inf")

    async def poll(self) -> Poll:
        """Poll, become a member if needed, end batches that are over, and wake loops with work.

        Raises:
            StoreUnavailable: the ledger did not answer; expired batches were ended all the same.
            StorageFull: this processor is not a member and can't become one now.
        """
        statuses: Mapping[str, Status] = {}
        try:
            found = await self.fetch()
            if not self._stop.is_set():
                if self._membership.lacks(found):
                    # This processor has just started, or was suspended for longer than a lease.
                    await self._membership.join()
                    found = await self.fetch()
                self._membership.update(found)
            statuses = found.statuses
        finally:
            self._deadlines.watch(statuses)
        self.answered_at = asyncio.get_running_loop().time()
        if found.planning_due:
            self._wakeups.planning_due.set()
        if found.finalizing_due:
            self._wakeups.finalizing_due.set()
        return found

    async def fetch(self, skip_models: Collection[str] = ()) -> Poll:
        """Return the ledger's answer, with at most `OFFERS_MAX` offers.

        Raises:
            StoreUnavailable: the ledger did not answer.
        """
        loop = asyncio.get_running_loop()
        asked_at = loop.time()
        found = await self._context.store.poll(
            self._context.owner,
            offers_max=OFFERS_MAX,
            batch_ids=list(self._open_batches.by_id),
            skip_models=skip_models,
            ending_only=self._context.ends_only,
        )
        self._ledger_clock.record(found.now, asked_at=asked_at, answered_at=loop.time())
        return found
