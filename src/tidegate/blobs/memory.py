"""Blobs in the memory of one process: for simulations, tests and throw-away servers."""

from heapq import nsmallest
from typing import Self

from typing_extensions import override

from tidegate.blobs.base import NAMES_MAX, BlobHealth, BlobStore, BlobWriter, check_name
from tidegate.domain.errors import BlobMissing, StorageFull


class MemoryBlobs(BlobStore):
    """Keeps every blob in a dictionary, which ends with the process.

    Its blobs survive `aclose`, so that a simulated process can be restarted on it.

    Args:
        appends: whether blobs may grow, as on a local disk, or not, as in a bucket.
        bytes_max: how many bytes all blobs together may have; None for no bound.
    """

    def __init__(self, *, appends: bool = False, bytes_max: int | None = None) -> None:
        assert bytes_max is None or bytes_max >= 0, bytes_max
        self._appends = appends
        self._bytes_max = bytes_max
        self._bytes = 0
        self._blobs: dict[str, bytes | bytearray] = {}

    @property
    @override
    def durable(self) -> bool:
        return False

    @property
    @override
    def appends(self) -> bool:
        return self._appends

    @override
    def writer(self, name: str) -> BlobWriter:
        return _MemoryWriter(self, check_name(name))

    @override
    async def put(self, name: str, data: bytes) -> None:
        before = len(self._blobs.get(check_name(name), b""))
        self.reserve(len(data) - before)
        self._blobs[name] = bytes(data)
        self._bytes += len(data) - before

    @override
    async def append(self, name: str, data: bytes, *, after: int) -> int:
        assert self._appends, "append on a store that does not append"
        end = len(self._blobs.get(check_name(name), b""))
        if end < after:
            raise BlobMissing(f"Blob '{name}' has {end} bytes, not the {after} acknowledged ones.")
        self.reserve(len(data))
        blob = self._blobs.setdefault(name, bytearray())
        assert isinstance(blob, bytearray), f"append to the finished blob {name}"
        offset = len(blob)
        blob += data
        self._bytes += len(data)
        return offset

    @override
    async def read(self, name: str, offset: int, length: int) -> bytes:
        assert min(offset, length) >= 0, (offset, length)
        blob = self._blobs.get(check_name(name))
        if blob is None:
            raise BlobMissing(f"There is no blob '{name}'.")
        if offset + length > len(blob):
            raise BlobMissing(
                f"Blob '{name}' has {len(blob)} bytes, not the {offset + length} asked for."
            )
        return bytes(memoryview(blob)[offset : offset + length])

    @override
    async def delete(self, name: str) -> None:
        self._bytes -= len(self._blobs.pop(check_name(name), b""))

    @override
    async def list_names(
        self, prefix: str, *, after: str = "", limit: int = NAMES_MAX
    ) -> list[str]:
        names = (name for name in self._blobs if name.startswith(prefix) and name > after)
        return nsmallest(limit, names)

    @override
    async def length(self, name: str) -> int:
        blob = self._blobs.get(check_name(name))
        if blob is None:
            raise BlobMissing(f"There is no blob '{name}'.")
        return len(blob)

    @override
    async def count_leftovers(self) -> int:
        # Unfinished bytes are in the writer, and end with it.
        return 0

    @override
    async def remove_leftovers(self) -> int:
        return 0

    @override
    async def check(self) -> None:
        self.reserve(1)

    @override
    async def health(self) -> BlobHealth:
        free = None if self._bytes_max is None else self._bytes_max - self._bytes
        return BlobHealth(place="memory", durable=False, free_bytes=free)

    @override
    async def aclose(self) -> None:
        return

    def reserve(self, extra: int) -> None:
        """Make sure that `extra` more bytes fit.

        Raises:
            StorageFull: they do not.
        """
        if self._bytes_max is not None and self._bytes + extra > self._bytes_max:
            raise StorageFull(
                f"The blobs fill their {self._bytes_max} bytes of memory; delete files."
            )


class _MemoryWriter(BlobWriter):
    """Gathers the bytes of one blob and hands them over when it is finished."""

    def __init__(self, blobs: MemoryBlobs, name: str) -> None:
        self._blobs = blobs
        self._name = name
        self._data = bytearray()
        self._open = False

    @override
    async def write(self, data: bytes) -> None:
        assert self._open, "write outside of `async with`, or after `finish`"
        self._blobs.reserve(len(self._data) + len(data))
        self._data += data

    @override
    async def finish(self) -> int:
        assert self._open, "finish outside of `async with`, or twice"
        self._open = False
        await self._blobs.put(self._name, bytes(self._data))
        return len(self._data)

    @override
    async def __aenter__(self) -> Self:
        self._open = True
        return self

    @override
    async def __aexit__(self, *_: object) -> None:
        self._open = False
        self._data.clear()
