"""Batches past their window are ended by processors; where none is alive, somebody must know."""

from typing_extensions import override

from tidegate.collector.duty import Duty
from tidegate.collector.report import NAMES_MAX, Report


class Overdue(Duty):
    """Tells of batches that nobody is there to end. There is nothing else to do about them."""

    @override
    async def plan(self) -> Report:
        store = self._tools.store
        if await store.get_living():
            return Report()
        batches = await store.list_overdue(limit=NAMES_MAX)
        return Report(overdue=tuple(batch.id for batch in batches))

    @override
    async def act(self) -> Report:
        report = await self.plan()
        if report.overdue:
            self._tools.observer.overdue(report.overdue)
        return report
