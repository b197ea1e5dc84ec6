"""Ends batches that only have to be ended, if no processor is alive to do it."""

from typing_extensions import override

from tidegate.collector.duty import PREVIEW_MAX, Duty
from tidegate.collector.report import NAMES_MAX, Report
from tidegate.domain.batch import TERMINAL, Batch


class FinalizeOrphans(Duty):
    """Ends batches that are cancelled, past their window, or complete.

    Does nothing while a processor is alive, which ends them itself.
    """

    @override
    async def plan(self) -> Report:
        found = await self._context.store.list_ending(limit=PREVIEW_MAX)
        if not found:
            return Report()
        if await self._context.store.list_members():
            return Report(batches_left=len(found))
        return Report(batches_ended=len(found))

    @override
    async def act(self) -> Report:
        context = self._context
        await self._pace.turn()
        found = await context.store.list_ending(limit=PREVIEW_MAX)
        if not found or await context.store.list_members():
            return Report(batches_left=len(found))
        await context.orphan_finalizer.end_all(lambda: self._pace.stopping)
        ended = await self._ended(found)
        left = await context.store.list_ending(limit=NAMES_MAX)
        if await context.store.list_members():
            return Report(batches_ended=ended, batches_left=len(left))
        overdue = tuple(batch.id for batch in left)
        if overdue:
            context.observer.on_batches_overdue(overdue)
        return Report(batches_ended=ended, overdue=overdue)

    async def _ended(self, found: list[Batch]) -> int:
        states = await self._context.store.get_states([batch.id for batch in found])
        return sum(status in TERMINAL for status in states.by_id.values())
