"""The bytes of a file for a download, as they were at one instant."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tidegate.blobs.base import BlobStore
from tidegate.domain.file import File, Part, Walk

# Each piece costs a hop to a thread and back, beside which larger ones save little.
CHUNK_BYTES_MAX = 512 * 1024
CHUNK_BYTES_MIN = 64 * 1024
CHUNKS_BYTES_MAX = 16 * 1024 * 1024


class Downloads:
    """Shares memory out among the downloads under way, however slowly their clients read.

    Each may hold a piece of `chunk_bytes` that is on its way out and read the next. All pieces of
    one kind have at most `CHUNKS_BYTES_MAX` together, or `CHUNK_BYTES_MIN` each.
    """

    def __init__(self) -> None:
        self._count = 0

    @property
    def chunk_bytes(self) -> int:
        """How large the next piece of a download may be."""
        fair = max(CHUNK_BYTES_MIN, CHUNKS_BYTES_MAX // max(1, self._count))
        return min(CHUNK_BYTES_MAX, fair)

    @contextmanager
    def one(self) -> Iterator[None]:
        """Count the block as a download."""
        self._count += 1
        try:
            yield
        finally:
            self._count -= 1


CHUNK_PARTS_MAX = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The bytes of a file as they were at one instant, however much it grows after."""

    file: File
    parts: tuple[Part, ...]
    blobs: BlobStore
    downloads: Downloads = field(default_factory=Downloads)

    async def read(self, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """Yield these bytes in pieces, each as large as memory permits.

        Raises:
            BlobMissing: bytes that the ledger knows are gone.
        """
        assert 0 <= start <= start + length <= self.file.bytes, (start, length, self.file.bytes)
        walk = Walk(self.parts, start, length)
        with self.downloads.one():
            while parts := walk.take(self.downloads.chunk_bytes, CHUNK_PARTS_MAX):
                yield await self.blobs.read_parts(parts)
