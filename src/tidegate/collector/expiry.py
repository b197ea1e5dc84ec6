"""Files that are deleted or expired, and held by no live batch, let go of their bytes."""

from collections.abc import Sequence

from typing_extensions import override

from tidegate.collector.duty import Duty
from tidegate.collector.pace import LOOK_MAX, PIECE
from tidegate.collector.report import Report
from tidegate.domain.ledger.values import UnusedFile


class Expiry(Duty):
    """Releases unused files; their blobs are kept for downloads under way."""

    @override
    async def plan(self) -> Report:
        return _report(await self._tools.store.list_unused_files(limit=LOOK_MAX))

    @override
    async def act(self) -> Report:
        tools = self._tools
        done = Report()
        while True:
            await self._pace.turn()
            found = await tools.store.list_unused_files(limit=PIECE)
            keep_seconds = self._settings.download_seconds_max
            ids = [file.file_id for file in found]
            gone = (
                set(await tools.store.release_files(ids, keep_seconds=keep_seconds)) if ids else ()
            )
            piece = _report([file for file in found if file.file_id in gone])
            tools.observer.on_files_released(piece.files_released)
            done += piece
            # Others that were not let go may be used again meanwhile, or are another collector's.
            if len(found) < PIECE or not gone:
                return done


def _report(files: Sequence[UnusedFile]) -> Report:
    return Report(files_released=len(files), bytes_released=sum(file.bytes for file in files))
