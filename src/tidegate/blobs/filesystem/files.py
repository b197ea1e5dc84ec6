"""The file operations that blobs stand on, as a port: tests inject faults and power loss here.

Every operation blocks and raises `OSError`. What survives power loss is what POSIX says: bytes of a
file after `sync` or `sync_data` of it, names in a directory after `sync` of it.
"""

import fcntl
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One name in a directory."""

    name: str
    is_directory: bool


class Files(Protocol):
    """A file system, through descriptors. Any thread may call."""

    def make_directory(self, path: Path) -> bool:
        """Make one directory for its owner alone. Return False if it is there already."""

    def list_directory(self, path: Path) -> list[Entry]:
        """Return the entries of a directory in any order."""

    def create(self, path: Path) -> int:
        """Make a new empty file, readable and writable for its owner alone, and open it.

        Raises:
            FileExistsError: the name is taken.
        """

    def open_to_write(self, path: Path) -> int:
        """Open an existing file for writing."""

    def open_to_read(self, path: Path) -> int:
        """Open an existing file for reading."""

    def open_directory(self, path: Path) -> int:
        """Open a directory, to flush its names with `sync`."""

    def lock(self, descriptor: int) -> bool:
        """Take the lock of an open file, which ends when it is closed or its process dies.

        Return False, without waiting, if another process has opened the file and holds it, in this
        process or in another.
        """

    def is_at(self, descriptor: int, path: Path) -> bool:
        """Return whether an open file is the one that has this name now."""

    def size(self, descriptor: int) -> int:
        """Return the length of an open file in bytes."""

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write some of the bytes at an offset; return how many were taken."""

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Return at most `length` bytes from an offset; none at the end of the file."""

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut an open file to a length in bytes."""

    def sync(self, descriptor: int) -> None:
        """Flush bytes and metadata of an open file, or names of a directory, to stable storage."""

    def sync_data(self, descriptor: int) -> None:
        """Flush the bytes of an open file, and its length, to stable storage."""

    def rename(self, source: Path, target: Path) -> None:
        """Give a file a new name in one step, replacing what had it."""

    def remove(self, path: Path) -> None:
        """Remove a file's name."""

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""

    def close(self, descriptor: int) -> None:
        """Let go of an open file or directory."""


class SystemFiles:
    """The machine's own file system."""

    def make_directory(self, path: Path) -> bool:
        """Make one directory for its owner alone. Return False if it is there already."""
        try:
            path.mkdir(DIRECTORY_MODE)
        except FileExistsError:
            return False
        return True

    def list_directory(self, path: Path) -> list[Entry]:
        """Return the entries of a directory in any order. Links are not followed."""
        with os.scandir(path) as entries:
            return [
                Entry(name=entry.name, is_directory=entry.is_dir(follow_symlinks=False))
                for entry in entries
            ]

    def create(self, path: Path) -> int:
        """Make a new empty file for its owner alone and open it."""
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)

    def open_to_write(self, path: Path) -> int:
        """Open an existing file for writing."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)

    def open_to_read(self, path: Path) -> int:
        """Open an existing file for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def open_directory(self, path: Path) -> int:
        """Open a directory, to flush its names with `sync`."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def lock(self, descriptor: int) -> bool:
        """Take the lock of an open file; return False if another process holds it."""
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def is_at(self, descriptor: int, path: Path) -> bool:
        """Return whether an open file is the one that has this name now."""
        try:
            found = path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return os.path.samestat(os.fstat(descriptor), found)

    def size(self, descriptor: int) -> int:
        """Return the length of an open file in bytes."""
        return os.fstat(descriptor).st_size

    def write(self, descriptor: int, data: memoryview, offset: int) -> int:
        """Write some of the bytes at an offset; return how many were taken."""
        return os.pwrite(descriptor, data, offset)

    def read(self, descriptor: int, length: int, offset: int) -> bytes:
        """Return at most `length` bytes from an offset; none at the end of the file."""
        return os.pread(descriptor, length, offset)

    def truncate(self, descriptor: int, length: int) -> None:
        """Cut an open file to a length in bytes."""
        os.ftruncate(descriptor, length)

    def sync(self, descriptor: int) -> None:
        """Flush bytes and metadata of an open file, or names of a directory, to stable storage."""
        # On macOS fsync stops at the drive's cache; only this control goes through it.
        through_cache = getattr(fcntl, "F_FULLFSYNC", None)
        if through_cache is None:
            os.fsync(descriptor)
        else:
            fcntl.fcntl(descriptor, through_cache)

    def sync_data(self, descriptor: int) -> None:
        """Flush the bytes of an open file, and its length, to stable storage."""
        if hasattr(os, "fdatasync"):
            os.fdatasync(descriptor)
        else:
            self.sync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file a new name in one step, replacing what had it."""
        source.replace(target)

    def remove(self, path: Path) -> None:
        """Remove a file's name."""
        path.unlink()

    def remove_directory(self, path: Path) -> None:
        """Remove an empty directory."""
        path.rmdir()

    def close(self, descriptor: int) -> None:
        """Let go of an open file or directory."""
        os.close(descriptor)
