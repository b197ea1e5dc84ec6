"""Blobs in a directory of this machine (PROTOCOL 10): the back-end of a single server.

A blob is the file of its name below the root. A new one is written beside its place under a name
with `~` in it, which no blob has, flushed, renamed, and its directory flushed. What a dead process
left under such a name is passed over by everything but `remove_leftovers`. A directory goes with
its last blob.
"""

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import ParamSpec, Self, TypeVar

from typing_extensions import override

from tidegate.blobs.base import NAMES_MAX, BlobHealth, BlobStore, BlobWriter, check_name
from tidegate.blobs.filesystem.appenders import Appenders
from tidegate.blobs.filesystem.disk import MARK, Disk
from tidegate.blobs.filesystem.draft import Draft
from tidegate.blobs.filesystem.files import Files, SystemFiles
from tidegate.blobs.filesystem.leftovers import count_leftovers, remove_leftovers
from tidegate.domain.errors import BlobMissing, BlobUnreadable, StorageBroken
from tidegate.domain.file import Part

BUFFER_BYTES = 1 << 20
THREADS = 8
HANDLES_MAX = 64

_PROBE = b"Tidegate was here.\n"

P = ParamSpec("P")
T = TypeVar("T")


class FilesystemBlobs(BlobStore):
    """A tree of files, for its owner alone.

    Every blocking call runs in a few threads of the store's own, and goes on to its end there also
    if the task that awaits it is cancelled: a blob is never left half changed. After a failed flush
    everything that writes raises `StorageBroken`; reading goes on. A read that fails is about that
    blob alone, and breaks nothing else.

    Args:
        root: the directory; made when the first blob is written.
        files: the file operations, the machine's own unless a test gives others.
        threads: how many calls may block at a time.
        handles_max: how many growing blobs stay open between two appends.
        executor: runs the blocking calls instead; its owner shuts it down.
    """

    def __init__(
        self,
        root: Path,
        *,
        files: Files | None = None,
        threads: int = THREADS,
        handles_max: int = HANDLES_MAX,
        executor: Executor | None = None,
    ) -> None:
        self._disk = Disk(root, files or SystemFiles())
        self._appenders = Appenders(self._disk, handles_max=handles_max)
        self._owns_threads = executor is None
        self._threads = executor or ThreadPoolExecutor(threads, thread_name_prefix="tidegate-blobs")

    @property
    @override
    def durable(self) -> bool:
        return True

    @property
    @override
    def appends(self) -> bool:
        return True

    @override
    def writer(self, name: str) -> BlobWriter:
        return _FileWriter(self, Draft(self._disk, self._disk.root / check_name(name)))

    @override
    async def put(self, name: str, data: bytes) -> None:
        await self.in_thread(_put, self._disk, check_name(name), data)

    @override
    async def append(self, name: str, data: bytes, *, after: int) -> int:
        return await self.in_thread(
            _append, self._disk, self._appenders, check_name(name), data, after
        )

    @override
    async def read(self, name: str, offset: int, length: int) -> bytes:
        assert min(offset, length) >= 0, (offset, length)
        return await self.in_thread(_read, self._disk, check_name(name), offset, length)

    @override
    async def read_parts(self, parts: Sequence[Part]) -> bytes:
        # One hop to a thread for all of them costs less than one for each.
        return await self.in_thread(_read_parts, self._disk, parts)

    @override
    async def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        return await self.in_thread(_read_ranges, self._disk, check_name(name), ranges)

    @override
    async def delete(self, name: str) -> None:
        await self.in_thread(_remove, self._disk, self._appenders, check_name(name))

    @override
    async def list_names(
        self, prefix: str, *, after: str = "", limit: int = NAMES_MAX
    ) -> list[str]:
        assert ".." not in prefix.split("/"), prefix
        return await self.in_thread(_page, self._disk, prefix, after, limit)

    @override
    async def length(self, name: str) -> int:
        return await self.in_thread(_length, self._disk, check_name(name))

    @override
    async def count_leftovers(self) -> int:
        return await self.in_thread(count_leftovers, self._disk)

    @override
    async def remove_leftovers(self) -> int:
        return await self.in_thread(remove_leftovers, self._disk)

    @override
    async def check(self) -> None:
        await self.in_thread(_probe, self._disk, self._appenders)

    @override
    async def health(self) -> BlobHealth:
        return await self.in_thread(_health, self._disk.root)

    @override
    async def aclose(self) -> None:
        if not self._owns_threads:
            await self.in_thread(self._appenders.close)
            return
        # Not in a thread of ours, because it waits for all of these.
        await asyncio.to_thread(self._close)

    async def in_thread(
        self, function: Callable[P, T], *arguments: P.args, **options: P.kwargs
    ) -> T:
        """Run a blocking call in a thread of the store, to its end also if cancelled."""
        future = self._threads.submit(function, *arguments, **options)
        return await asyncio.shield(asyncio.wrap_future(future))

    def _close(self) -> None:
        self._threads.shutdown(wait=True)
        self._appenders.close()


class _FileWriter(BlobWriter):
    """Gathers about `BUFFER_BYTES` before each hop to a thread."""

    def __init__(self, blobs: FilesystemBlobs, draft: Draft) -> None:
        self._blobs = blobs
        self._draft = draft
        self._buffer = bytearray()
        self._usable = False

    @override
    async def write(self, data: bytes) -> None:
        assert self._usable, "write outside of `async with`, or after a failure or `finish`"
        full: bytes | bytearray = data
        if self._buffer or len(data) < BUFFER_BYTES:
            self._buffer += data
            if len(self._buffer) < BUFFER_BYTES:
                return
            full, self._buffer = self._buffer, bytearray()
        # Until it is known to be written the blob has a hole, and may only be dropped.
        self._usable = False
        await self._blobs.in_thread(self._draft.write, full)
        self._usable = True

    @override
    async def finish(self) -> int:
        assert self._usable, "finish outside of `async with`, after a failure, or twice"
        self._usable = False
        return await self._blobs.in_thread(self._draft.finish, self._buffer)

    @override
    async def __aenter__(self) -> Self:
        self._usable = True
        return self

    @override
    async def __aexit__(self, *_: object) -> None:
        self._usable = False
        await self._blobs.in_thread(self._draft.drop)


def _put(disk: Disk, name: str, data: bytes) -> None:
    draft = Draft(disk, disk.root / name)
    try:
        draft.finish(data)
    finally:
        draft.drop()


def _append(disk: Disk, appenders: Appenders, name: str, data: bytes, after: int) -> int:
    with disk.writing(), appenders.lend(name) as appender:
        try:
            return appender.append(data, after=after)
        except FileNotFoundError as error:
            if not after:
                raise
            raise BlobMissing(f"There is no blob '{name}' any more.") from error


def _read(disk: Disk, name: str, offset: int, length: int) -> bytes:
    with _reading(disk, name) as descriptor:
        return _read_slice(disk, descriptor, name, offset, length)


def _read_parts(disk: Disk, parts: Sequence[Part]) -> bytes:
    """Read slices of any blobs, each blob opened once and one after the other."""
    wanted: dict[str, list[int]] = {}
    for place, part in enumerate(parts):
        wanted.setdefault(part.blob, []).append(place)
    pieces = [b""] * len(parts)
    for name, places in wanted.items():
        with _reading(disk, check_name(name)) as descriptor:
            for place in places:
                part = parts[place]
                pieces[place] = _read_slice(disk, descriptor, name, part.offset, part.length)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_ranges(disk: Disk, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    with _reading(disk, name) as descriptor:
        read = disk.files.read
        found = [read(descriptor, length, offset) for offset, length in ranges]
        if sum(map(len, found)) == sum([length for _, length in ranges]):
            return found
        # A read may come short for no reason, or because the blob is.
        return [_read_slice(disk, descriptor, name, offset, length) for offset, length in ranges]


def _read_slice(disk: Disk, descriptor: int, name: str, offset: int, length: int) -> bytes:
    data = _read_all(disk.files, descriptor, offset, length)
    # An empty slice can also be beyond the end, which only the size shows.
    if not length or len(data) < length:
        size = disk.files.size(descriptor)
        if size < offset + length:
            raise BlobMissing(
                f"Blob '{name}' has {size} bytes, not the {offset + length} asked for."
            )
    return data


def _length(disk: Disk, name: str) -> int:
    with _reading(disk, name) as descriptor:
        # Also distinguishes a directory from a blob.
        disk.files.read(descriptor, 1, 0)
        return disk.files.size(descriptor)


@contextmanager
def _reading(disk: Disk, name: str) -> Iterator[int]:
    try:
        descriptor = disk.files.open_to_read(disk.root / name)
        try:
            yield descriptor
        finally:
            disk.files.close(descriptor)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise BlobMissing(f"There is no blob '{name}'.") from error
    except OSError as error:
        if disk.is_short(error):
            raise disk.judged(error) from error
        # It says nothing about other blobs, and nothing about what is flushed.
        raise BlobUnreadable(
            f"Blob '{name}' in '{disk.root}' can't be read: {error.strerror or 'unknown'}."
        ) from error


def _read_all(files: Files, descriptor: int, offset: int, length: int) -> bytes:
    pieces: list[bytes] = []
    done = 0
    while done < length and (piece := files.read(descriptor, length - done, offset + done)):
        pieces.append(piece)
        done += len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _remove(disk: Disk, appenders: Appenders, name: str) -> None:
    with disk.writing(), appenders.lend(name) as appender:
        appender.close()
        try:
            disk.files.remove(disk.root / name)
        except (FileNotFoundError, NotADirectoryError):
            return
        disk.remove_if_empty((disk.root / name).parent)


def _page(disk: Disk, prefix: str, after: str, limit: int) -> list[str]:
    return list(islice(_names(disk, prefix.rpartition("/")[0], prefix, after), limit))


def _names(disk: Disk, folder: str, prefix: str, after: str) -> Iterator[str]:
    """Yield the names below a folder that begin with `prefix` and sort behind `after`, sorted."""
    found: list[tuple[str, bool]] = []
    for entry in disk.entries(disk.root / folder):
        name = f"{folder}/{entry.name}" if folder else entry.name
        # Names in a directory sort as if it ended with the slash that they have there.
        first = f"{name}/" if entry.is_directory else name
        is_behind = first > after or (entry.is_directory and after.startswith(first))
        if name.startswith(prefix) and MARK not in entry.name and is_behind:
            found.append((first, entry.is_directory))
    for first, is_directory in sorted(found):
        if is_directory:
            yield from _names(disk, first[:-1], prefix, after)
        else:
            yield first


def _probe(disk: Disk, appenders: Appenders) -> None:
    # Apart from that of any other process, and no name of a blob.
    name = disk.temporary_path(Path("check")).name
    draft = Draft(disk, disk.root / name)
    try:
        # Its lock is kept: without it, this would be taken for what a dead process left behind.
        draft.publish(_PROBE)
        try:
            found = _read(disk, name, 0, len(_PROBE))
        except BlobMissing as error:
            raise disk.broken_by("what was written can't be read back") from error
        if found != _PROBE:
            raise disk.broken_by("what was written reads back differently")
        _remove(disk, appenders, name)
    finally:
        draft.drop()


def _health(root: Path) -> BlobHealth:
    place = root.absolute()
    while not place.exists():
        place = place.parent
    try:
        room = os.statvfs(place)
    except OSError as error:
        raise StorageBroken(f"'{place}' can't be looked at: {error.strerror}.") from error
    return BlobHealth(place=str(root), durable=True, free_bytes=room.f_bavail * room.f_frsize)
