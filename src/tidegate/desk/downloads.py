"""How much of a file a download reads at a time: less where many go on together."""

from collections.abc import Iterator
from contextlib import contextmanager

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
