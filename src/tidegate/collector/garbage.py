"""Blobs that nobody needs go, once whoever could still need them was fenced (PROTOCOL 18)."""

from collections.abc import AsyncIterator, Sequence

from typing_extensions import override

from tidegate.blobs.base import is_name
from tidegate.collector.duty import Duty
from tidegate.collector.pace import LOOK_MAX, PIECE
from tidegate.collector.report import NAMES_MAX, Report
from tidegate.domain.blob_names import parse
from tidegate.domain.errors import BlobMissing


class _Deleting(Duty):
    async def _delete(self, names: Sequence[str]) -> Report:
        """Delete those of these blobs that the ledger gives up for good."""
        tools = self._tools
        idle_seconds = self._settings.upload_seconds_max
        deletable = (
            await tools.store.fence_and_list_deletable(names, idle_seconds=idle_seconds)
            if names
            else []
        )
        size = 0
        for name in deletable:
            size += await self._length(name)
            await tools.blobs.delete(name)
        tools.observer.on_blobs_deleted(len(deletable), size)
        return Report(blobs_deleted=len(deletable), bytes_deleted=size)

    async def _measure(self, names: Sequence[str]) -> Report:
        size = 0
        for name in names:
            size += await self._length(name)
        return Report(blobs_deleted=len(names), bytes_deleted=size)

    async def _length(self, name: str) -> int:
        try:
            return await self._tools.blobs.length(name)
        except BlobMissing:
            return 0


class Retained(_Deleting):
    """Deletes what was kept for downloads and whose time is over."""

    @override
    async def plan(self) -> Report:
        return await self._measure(await self._tools.store.list_retained(limit=LOOK_MAX))

    @override
    async def act(self) -> Report:
        store = self._tools.store
        done = Report()
        while True:
            await self._pace.turn()
            names = await store.list_retained(limit=PIECE)
            done += await self._delete(names)
            # What stays is needed again, or its writer may write still: then a sweep finds it.
            await store.forget_retained(names)
            if len(names) < PIECE:
                return done


class Sweep(_Deleting):
    """Compares every blob with the ledger; also removes what dead writers left unfinished."""

    @override
    async def plan(self) -> Report:
        done = Report(leftovers_removed=await self._tools.blobs.count_leftovers())
        async for ours, strangers in self._pieces():
            unneeded = await self._tools.store.list_unreferenced(ours)
            done += _strange(strangers) + await self._measure(unneeded)
        return done

    @override
    async def act(self) -> Report:
        tools = self._tools
        # First, because it needs no room in the ledger.
        done = Report(leftovers_removed=await tools.blobs.remove_leftovers())
        async for ours, strangers in self._pieces():
            for name in strangers:
                tools.observer.on_unknown_blob(name)
            unneeded = await tools.store.list_unreferenced(ours)
            done += _strange(strangers) + await self._delete(unneeded)
        return done

    async def _pieces(self) -> AsyncIterator[tuple[list[str], list[str]]]:
        """Yield all blobs in pieces: those of ours, and those whose names say nothing to us."""
        async for names in self._tools.blobs.name_pages(""):
            for start in range(0, len(names), PIECE):
                await self._pace.turn()
                piece = names[start : start + PIECE]
                ours = [name for name in piece if _is_ours(name)]
                yield ours, [name for name in piece if not _is_ours(name)]


def _is_ours(name: str) -> bool:
    # People and their tools put files anywhere: no blob has a name with a blank in it.
    return is_name(name) and parse(name) is not None


def _strange(names: Sequence[str]) -> Report:
    return Report(strangers=len(names), stranger_names=tuple(names[:NAMES_MAX]))
