"""The file operations that blobs stand on, upon a disk that forgets what was not flushed."""

import errno
import itertools
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import ParamSpec, TypeVar

from typing_extensions import override

from testkit.power.disk import PowerLossDisk
from tidegate.blobs.filesystem.files import Entry

P = ParamSpec("P")
T = TypeVar("T")


class PowerLossFiles:
    """The `Files` port on a `PowerLossDisk`.

    Args:
        disk: where the files lie.
        flushes_files: whether flushing a file does anything; a broken disk says so and does not.
        flushes_directories: the same for directories.
    """

    def __init__(
        self, disk: PowerLossDisk, *, flushes_files: bool = True, flushes_directories: bool = True
    ) -> None:
        self._disk = disk
        self._flushes_files = flushes_files
        self._flushes_directories = flushes_directories
        self._open: dict[int, int] = {}
        self._locks: dict[int, int] = {}
        self._descriptors = itertools.count(3)

    def make_directory(self, path: Path) -> bool:
        """Make one directory. Return False if it is there already."""
        if path == self._disk.root:
            return False
        try:
            self._disk.make(path, directory=True)
        except FileExistsError:
            return False
        return True

    def list_directory(self, path: Path) -> list[Entry]:
        """Return the entries of a directory."""
        return [
            Entry(name=name, is_directory=self._disk.is_directory(number))
            for name, number in self._disk.names(path).items()
        ]

    def create(self, path: Path) -> int:
        """Make a new empty file and open it."""
        return self._opened(self._disk.make(path))

    def open_to_write(self, path: Path) -> int:
        """Open an existing file for writing."""
        return self.open_to_read(path)

    def open_to_read(self, path: Path) -> int:
        """Open an existing file for reading."""
        number = self._disk.find(path)
        if self._disk.is_directory(number):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        return self._opened(number)

    def open_directory(self, path: Path) -> int:
        """Open a directory, to flush its names with `sync`."""
        if path == self._disk.root.parent:
            # What lies above the disk is flushed; it is opened as the disk itself.
            return self._opened(0)
        self._disk.names(path)
        return self._opened(self._disk.find(path))

    def lock(self, descriptor: int) -> bool:
        """Take the lock of an open file; return False if another descriptor has it."""
        self._disk.hear()
        return self._locks.setdefault(self._open[descriptor], descriptor) == descriptor

    def is_at(self, descriptor: int, path: Path) -> bool:
        """Return whether an open file is the one that has this name now."""
        return self._disk.exists(path) and self._disk.find(path) == self._open[descriptor]

    def size(self, descriptor: int) -> int:
        """Return the length of an open file in bytes."""
        return self._disk.size(self._open[descriptor])

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write all of the bytes at an offset; return how many they were."""
        self._disk.write(self._open[descriptor], bytes(data), offset)
        return len(data)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Return at most `length` bytes from an offset."""
        return self._disk.read(self._open[descriptor], length, offset)

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut an open file to a length in bytes."""
        self._disk.truncate(self._open[descriptor], length)

    def sync(self, descriptor: int) -> None:
        """Flush an open file or directory, unless that is broken."""
        number = self._open[descriptor]
        is_directory = self._disk.is_directory(number)
        if self._flushes_directories if is_directory else self._flushes_files:
            self._disk.sync(number)

    def sync_data(self, descriptor: int) -> None:
        """Flush the bytes and the length of an open file, unless that is broken."""
        self.sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file a new name in one step."""
        self._disk.rename(source, target)

    def remove(self, path: Path) -> None:
        """Remove a file's name."""
        self._disk.remove(path)

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        self._disk.remove(path)

    def close(self, descriptor: int) -> None:
        """Let go of an open file or directory; that works without power."""
        number = self._open.pop(descriptor)
        if self._locks.get(number) == descriptor:
            del self._locks[number]

    def _opened(self, number: int) -> int:
        descriptor = next(self._descriptors)
        self._open[descriptor] = number
        return descriptor


class InlineThreads(Executor):
    """Runs each call at once, in the caller: for blobs whose every step must be in one order."""

    @override
    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - as a real thread does: it is the caller's
            future.set_exception(error)
        return future
