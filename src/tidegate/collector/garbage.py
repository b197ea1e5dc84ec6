"""Deletes unneeded blobs, once every writer that could still need them is fenced (PROTOCOL 18)."""

from collections.abc import AsyncIterator, Sequence

from typing_extensions import override

from tidegate.blobs.base import is_name
from tidegate.collector.duty import PIECE, PREVIEW_MAX, Duty
from tidegate.collector.report import NAMES_MAX, Report
from tidegate.domain.blob_names import parse
from tidegate.domain.errors import BlobMissing


class _Deleting(Duty):
    async def _delete(self, names: Sequence[str]) -> Report:
        """Delete those of these blobs that the ledger can fence and no longer needs."""
        if not names:
            return Report()
        context = self._context
        idle_seconds = self._settings.upload_seconds_max
        deletable = await context.store.fence_and_list_deletable(names, idle_seconds=idle_seconds)
        size = 0
        for name in deletable:
            size += await self._length(name)
            await context.blobs.delete(name)
        context.observer.on_blobs_deleted(len(deletable), size)
        return Report(blobs_deleted=len(deletable), bytes_deleted=size)

    async def _measure(self, names: Sequence[str]) -> Report:
        size = 0
        for name in names:
            size += await self._length(name)
        return Report(blobs_deleted=len(names), bytes_deleted=size)

    async def _length(self, name: str) -> int:
        try:
            return await self._context.blobs.length(name)
        except BlobMissing:
            return 0


class Retained(_Deleting):
    """Deletes blobs that were kept for downloads until their time is over."""

    @override
    async def plan(self) -> Report:
        return await self._measure(await self._context.store.list_retained(limit=PREVIEW_MAX))

    @override
    async def act(self) -> Report:
        store = self._context.store
        done = Report()
        while True:
            await self._pace.turn()
            names = await store.list_retained(limit=PIECE)
            done += await self._delete(names)
            # A blob that stays is needed again, or its writer is not fenced; then a sweep finds it.
            await store.forget_retained(names)
            if len(names) < PIECE:
                return done


class Sweep(_Deleting):
    """Deletes blobs without a reference in the ledger, and unfinished files of dead writers."""

    @override
    async def plan(self) -> Report:
        done = Report(leftovers_removed=await self._context.blobs.count_leftovers())
        async for known, unknown_blobs in self._pieces():
            unneeded = await self._context.store.list_unreferenced(known)
            done += _unknown_report(unknown_blobs) + await self._measure(unneeded)
        return done

    @override
    async def act(self) -> Report:
        context = self._context
        # First, because it needs no room in the ledger.
        done = Report(leftovers_removed=await context.blobs.remove_leftovers())
        async for known, unknown_blobs in self._pieces():
            for name in unknown_blobs:
                context.observer.on_unknown_blob(name)
            unneeded = await context.store.list_unreferenced(known)
            done += _unknown_report(unknown_blobs) + await self._delete(unneeded)
        return done

    async def _pieces(self) -> AsyncIterator[tuple[list[str], list[str]]]:
        """Yield all blob names in pieces: those of the product, and unknown ones."""
        async for names in self._context.blobs.name_pages(""):
            for start in range(0, len(names), PIECE):
                await self._pace.turn()
                piece = names[start : start + PIECE]
                known = [name for name in piece if _is_known(name)]
                yield known, [name for name in piece if not _is_known(name)]


def _is_known(name: str) -> bool:
    # Other programs may put files beside the blobs, with names that no blob can have.
    return is_name(name) and parse(name) is not None


def _unknown_report(names: Sequence[str]) -> Report:
    return Report(unknown_blobs=len(names), unknown_blob_names=tuple(names[:NAMES_MAX]))
