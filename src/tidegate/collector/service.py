"""The collector: rounds of upkeep, for as long as it is not stopped."""

import asyncio
from collections.abc import Callable, Sequence

from tidegate.collector.compaction import Compaction
from tidegate.collector.drift import Drift
from tidegate.collector.duty import CollectorContext, Duty, Pace, Stopped
from tidegate.collector.expiry import Expiry
from tidegate.collector.garbage import Retained, Sweep
from tidegate.collector.orphans import FinalizeOrphans
from tidegate.collector.report import Report
from tidegate.collector.retention import Retention
from tidegate.collector.settings import Settings
from tidegate.domain.errors import StorageFull, StoreUnavailable

_ROUND: tuple[Callable[[Settings, CollectorContext, Pace], Duty], ...] = (
    Expiry,
    Retention,
    Retained,
    Compaction,
    FinalizeOrphans,
)
_SWEEP: tuple[Callable[[Settings, CollectorContext, Pace], Duty], ...] = (Sweep, Drift)


class Collector:
    """Keeps ledger and blobs clean. Any number of collectors may run, in any processes.

    `stop` ends it after the current piece of work, `abort` immediately; both may be called before
    `run`, and twice. Interrupted work is safe: the next round of any collector continues it.
    """

    def __init__(self, settings: Settings, context: CollectorContext) -> None:
        self._settings = settings
        self._context = context
        self._pace = Pace()
        self._stopped = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._duties = [make(settings, context, self._pace) for make in _ROUND]
        self._sweeps = [make(settings, context, self._pace) for make in _SWEEP]

    async def run(self) -> None:
        """Do a round every interval, and a full one every sweep interval, until stopped.

        Raises:
            StorageBroken: the disk can't be trusted any more.
        """
        async with asyncio.TaskGroup() as group:
            self._task = group.create_task(self._rounds(), name="collector rounds")

    def stop(self) -> None:
        """Start no further piece of work, and end `run`."""
        self._pace.stopping = True
        self._stopped.set()

    def abort(self) -> None:
        """End `run` now."""
        self.stop()
        if self._task is not None:
            self._task.cancel()

    async def collect(self, *, everything: bool = True) -> Report:
        """Do one round, and return what was done. Duties that failed wait for the next round.

        Raises:
            StorageBroken: the disk can't be trusted any more.
        """
        report = Report()
        for duty in self._chosen(everything=everything):
            try:
                report += await duty.act()
            except (StoreUnavailable, StorageFull) as error:
                self._context.observer.on_interrupted(error)
                report += Report(held_up=(str(error),))
        self._context.observer.on_round_done(
            files=report.files_released,
            batches=report.batches_dropped,
            blobs=report.blobs_deleted,
            size=report.bytes_deleted,
        )
        return report

    async def preview(self) -> Report:
        """Return what a full round would do now, without changing anything."""
        report = Report()
        for duty in self._chosen(everything=True):
            try:
                report += await duty.plan()
            except (StoreUnavailable, StorageFull) as error:
                report += Report(held_up=(str(error),))
        return report

    def _chosen(self, *, everything: bool) -> Sequence[Duty]:
        return [*self._duties, *self._sweeps] if everything else self._duties

    async def _rounds(self) -> None:
        loop = asyncio.get_running_loop()
        # The first round is a full one: a process may end before a sweep interval has passed.
        sweep_at = loop.time()
        while await self._is_due(self._settings.interval_seconds):
            everything = loop.time() >= sweep_at
            try:
                await self.collect(everything=everything)
            except Stopped:
                return
            if everything:
                sweep_at = loop.time() + self._settings.sweep_seconds

    async def _is_due(self, seconds: float) -> bool:
        """Wait for the next round; return False if stopped before it."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopped.wait()
        except TimeoutError:
            return True
        return False
