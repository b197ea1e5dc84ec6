"""A new blob on its way to its name."""

import threading
from contextlib import suppress
from pathlib import Path

from tidegate.blobs.disk import Disk

NAME_TRIES_MAX = 1_000


class Draft:
    """A temporary file beside the blob's place, opened with the first bytes.

    Calls block, and take their turn: one that nobody waits for any more is still finished before
    the next begins.
    """

    def __init__(self, disk: Disk, path: Path) -> None:
        self._disk = disk
        self._path = path
        self._turn = threading.Lock()
        self._descriptor: int | None = None
        self._temporary: Path | None = None
        self._length = 0

    def write(self, data: bytes | bytearray) -> None:
        """Add bytes."""
        with self._turn, self._disk.writing():
            self._add(data)

    def finish(self, data: bytes | bytearray) -> int:
        """Add the last bytes, make the blob durable and visible; return its length."""
        with self._turn, self._disk.writing():
            descriptor = self._add(data)
            self._disk.sync(descriptor)
            self._close()
            assert self._temporary is not None
            with self._disk.changing_names(self._path.parent):
                self._disk.files.rename(self._temporary, self._path)
                self._temporary = None
            return self._length

    def drop(self) -> None:
        """Remove what was not finished. Twice, and after `finish`, is harmless."""
        with self._turn:
            # What can't be removed stays behind under a name that everybody passes over.
            with suppress(OSError):
                self._close()
            if self._temporary is not None:
                with suppress(OSError):
                    self._disk.files.remove(self._temporary)
                self._temporary = None

    def _add(self, data: bytes | bytearray) -> int:
        descriptor = self._open() if self._descriptor is None else self._descriptor
        self._disk.write_all(descriptor, data, self._length)
        self._length += len(data)
        return descriptor

    def _open(self) -> int:
        for _ in range(NAME_TRIES_MAX):
            # A dead process may have had our number and left a file under the same name.
            with suppress(FileExistsError):
                path = self._disk.temporary_path(self._path)
                self._descriptor = self._disk.create(path)
                self._temporary = path
                return self._descriptor
        raise self._disk.broken_by("too many files were left behind")

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._disk.files.close(descriptor)
