"""Blobs that keep nothing of what is written: for what goes before a disk, without any disk."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

from typing_extensions import override

from tidegate.blobs.base import BlobWriter
from tidegate.blobs.memory import MemoryBlobs


class Drain(MemoryBlobs):
    """Counts what is written into new blobs, and forgets it; `on_write` gets each piece first.

    Memory that grows has to be asked from the system, which costs now this and now that.
    """

    def __init__(self, on_write: Callable[[bytes], object] = len) -> None:
        super().__init__()
        self._on_write = on_write

    @override
    def writer(self, name: str) -> BlobWriter:
        return _Pipe(self._on_write)


class _Pipe(BlobWriter):
    """Leads nowhere."""

    def __init__(self, on_write: Callable[[bytes], object]) -> None:
        self._on_write = on_write
        self._length = 0

    @override
    async def write(self, data: bytes) -> None:
        self._on_write(data)
        self._length += len(data)

    @override
    async def finish(self) -> int:
        return self._length

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return
