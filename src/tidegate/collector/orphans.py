"""Batches that only have to be ended are ended here where no processor is alive to do it."""

from typing_extensions import override

from tidegate.collector.duty import Duty
from tidegate.collector.pace import LOOK_MAX
from tidegate.collector.report import NAMES_MAX, Report
from tidegate.domain.batch import TERMINAL, Batch


class FinalizeOrphans(Duty):
    """Lets batches end that are cancelled, past their window, or have every result.

    Processors that live are left to it: they look as often as they poll.
    """

    @override
    async def plan(self) -> Report:
        found = await self._tools.store.list_ending(limit=LOOK_MAX)
        if not found:
            return Report()
        if await self._tools.store.list_members():
            return Report(batches_left=len(found))
        return Report(batches_ended=len(found))

    @override
    async def act(self) -> Report:
        tools = self._tools
        await self._pace.turn()
        found = await tools.store.list_ending(limit=LOOK_MAX)
        if not found or await tools.store.list_members():
            return Report(batches_left=len(found))
        await tools.ender.end_all(lambda: self._pace.stopping)
        ended = await self._ended(found)
        left = await tools.store.list_ending(limit=NAMES_MAX)
        if await tools.store.list_members():
            return Report(batches_ended=ended, batches_left=len(left))
        overdue = tuple(batch.id for batch in left)
        if overdue:
            tools.observer.on_batches_overdue(overdue)
        return Report(batches_ended=ended, overdue=overdue)

    async def _ended(self, found: list[Batch]) -> int:
        states = await self._tools.store.get_states([batch.id for batch in found])
        return sum(status in TERMINAL for status in states.by_id.values())
