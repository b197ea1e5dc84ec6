"""Releases the bytes of files that are deleted or expired and not used by a running batch."""

from collections.abc import Sequence

from typing_extensions import override

from tidegate.collector.duty import PIECE, PREVIEW_MAX, Duty
from tidegate.collector.report import Report
from tidegate.domain.ledger.values import UnusedFile


class Expiry(Duty):
    """Releases unused files; their blobs are kept for downloads under way."""

    @override
    async def plan(self) -> Report:
        return _report(await self._context.store.list_unused_files(limit=PREVIEW_MAX))

    @override
    async def act(self) -> Report:
        context = self._context
        done = Report()
        while True:
            await self._pace.turn()
            found = await context.store.list_unused_files(limit=PIECE)
            keep_seconds = self._settings.download_seconds_max
            ids = [file.file_id for file in found]
            gone = (
                set(await context.store.release_files(ids, keep_seconds=keep_seconds))
                if ids
                else ()
            )
            piece = _report([file for file in found if file.file_id in gone])
            context.observer.on_files_released(piece.files_released)
            done += piece
            # Files that were not released are used again, or another collector released them.
            if len(found) < PIECE or not gone:
                return done


def _report(files: Sequence[UnusedFile]) -> Report:
    return Report(files_released=len(files), bytes_released=sum(file.bytes for file in files))
