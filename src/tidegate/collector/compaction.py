"""Rewrites files of many parts as few parts: same bytes, same offsets (PROTOCOL 12)."""

from collections.abc import Sequence

from typing_extensions import override

from tidegate.collector.duty import PIECE, Duty
from tidegate.collector.report import Report
from tidegate.domain.blob_names import UploadBlob
from tidegate.domain.errors import BlobMissing, NotFound, StorageFull
from tidegate.domain.file import File, Part, Walk
from tidegate.domain.ledger.values import Fragmented

READ_BYTES = 2**20
READ_PARTS = 1_000


class Compaction(Duty):
    """Copies runs of small parts into new blobs, and swaps the parts by compare-and-set."""

    @override
    async def plan(self) -> Report:
        done = Report()
        for found in await self._list():
            await self._pace.turn()
            seen = await self._get_parts(found)
            runs = [] if seen is None else self._runs(*seen)
            saved = sum(end - start - 1 for start, end in runs)
            done += Report(files_compacted=int(saved > 0), parts_merged=saved)
        return done

    @override
    async def act(self) -> Report:
        done = Report()
        for found in await self._list():
            done += await self._compact(found)
        return done

    async def _list(self) -> list[Fragmented]:
        return await self._context.store.list_fragmented(
            parts_min=self._settings.compact_parts_min, limit=PIECE
        )

    async def _get_parts(self, found: Fragmented) -> tuple[File, tuple[Part, ...]] | None:
        try:
            return await self._context.store.get_parts(found.tenant, found.file_id)
        except NotFound:
            return None

    def _runs(self, file: File, parts: tuple[Part, ...]) -> list[tuple[int, int]]:
        # The last part of a growing file may still become longer.
        settled = parts[:-1] if file.growing else parts
        return runs(settled, self._settings.compact_bytes_max)

    async def _compact(self, found: Fragmented) -> Report:
        """Rewrite one file run by run; each swap is a separate transaction."""
        seen = await self._get_parts(found)
        if seen is None:
            return Report()
        file, parts = seen
        before: list[Part] = []
        position = merged = 0
        for start, end in self._runs(file, parts):
            await self._pace.turn()
            before += parts[position:start]
            new = await self._rewrite(file, before, parts[start:end])
            if new is None:
                break
            before.append(new)
            position = end
            merged += end - start - 1
        if merged:
            self._context.observer.on_file_compacted(file.id, len(parts), len(parts) - merged)
        return Report(files_compacted=int(merged > 0), parts_merged=merged)

    async def _rewrite(self, file: File, before: list[Part], run: Sequence[Part]) -> Part | None:
        """Replace these parts by one blob; return its part, or None if the swap was refused."""
        context = self._context
        upload_id = context.ids.make("upload_")
        blob = UploadBlob(upload_id=upload_id).name
        now = context.clock.now()
        await context.store.begin_upload(upload_id, tenant=file.tenant, blob=blob, at=now)
        try:
            new = Part(blob=blob, offset=0, length=await self._copy(blob, run))
        except BlobMissing:
            # Bytes of the file are gone, which the search for drift reports.
            await self._withdraw(upload_id, blob)
            return None
        except StorageFull:
            await self._withdraw(upload_id, blob)
            raise
        keep_seconds = self._settings.download_seconds_max
        if await context.store.swap_parts(
            upload_id, file.id, old=[*before, *run], new=[*before, new], keep_seconds=keep_seconds
        ):
            return new
        await self._withdraw(upload_id, blob)
        return None

    async def _copy(self, blob: str, run: Sequence[Part]) -> int:
        """Write the bytes of these parts into a new blob, in bounded pieces; return its length."""
        blobs = self._context.blobs
        expected = sum(part.length for part in run)
        walk = Walk(run, 0, expected)
        async with blobs.writer(blob) as writer:
            while parts := walk.take(READ_BYTES, READ_PARTS):
                await writer.write(await blobs.read_parts(parts))
            length = await writer.finish()
        assert length == expected, "the copy is not as long as its parts"
        return length

    async def _withdraw(self, upload_id: str, blob: str) -> None:
        # Delete only a fenced upload: the answer may have been lost, and the parts swapped.
        if await self._context.store.abandon_upload(upload_id):
            await self._context.blobs.delete(blob)


def runs(parts: Sequence[Part], bytes_max: int) -> list[tuple[int, int]]:
    """Return (start, end) of each run of two or more neighbours that fit in `bytes_max` together.

    A part of half that size or more is left alone, so that what was compacted is not copied again
    for every few bytes that follow it.
    """
    found: list[tuple[int, int]] = []
    start = size = 0
    for index, part in enumerate(parts):
        alone = 2 * part.length >= bytes_max
        if alone or size + part.length > bytes_max:
            found.append((start, index))
            start, size = index, 0
        size += part.length
        if alone:
            start, size = index + 1, 0
    found.append((start, len(parts)))
    return [(low, high) for low, high in found if high - low > 1]
