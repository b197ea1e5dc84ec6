"""The input of a batch, read from its start or at any offset."""

from collections.abc import AsyncIterator, Sequence

from tidegate.blobs.base import BlobStore
from tidegate.domain.file import Part, cut

READ_BYTES = 2**20


class InputFile:
    """The bytes of a file, which is stored in parts.

    Every method raises the errors of `BlobStore.read`.
    """

    def __init__(self, blobs: BlobStore, parts: Sequence[Part]) -> None:
        self._blobs = blobs
        self._parts = parts

    async def pieces(self) -> AsyncIterator[bytes]:
        """Yield all bytes in order, at most `READ_BYTES` at a time."""
        for part in self._parts:
            for start in range(0, part.length, READ_BYTES):
                length = min(READ_BYTES, part.length - start)
                yield await self._blobs.read(part.blob, part.offset + start, length)

    async def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of many ranges, each an offset in the file and a length above zero."""
        if len(self._parts) == 1 and self._parts[0].offset == 0:
            # The form of an upload: one blob holds the whole file.
            return await self._blobs.read_ranges(self._parts[0].blob, ranges)
        return [
            await self._blobs.read_parts(cut(self._parts, offset, length))
            for offset, length in ranges
        ]
