"""A new blob on its way to its name."""

import threading
from contextlib import suppress
from pathlib import Path

from tidegate.blobs.filesystem.disk import Disk

NAME_TRIES_MAX = 1_000


class Draft:
    """A temporary file beside the blob's place, opened with the first bytes.

    Its lock is held for as long as it has that name, so that a process that can take the
    lock knows that the writer is dead, in any process or container.

    Calls block, and take their turn: a call whose caller is cancelled still finishes before
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
            self._publish(data)
            self._close()
            return self._length

    def publish(self, data: bytes | bytearray) -> None:
        """Do what `finish` does, but keep the lock on the file until `drop`."""
        with self._turn, self._disk.writing():
            self._publish(data)

    def drop(self) -> None:
        """Remove what was not finished. Twice, and after `finish`, is harmless."""
        with self._turn:
            # What can't be removed stays behind for `remove_leftovers`. Its name goes while the
            # lock is held: afterwards another process's draft may have it.
            if self._temporary is not None:
                with suppress(OSError):
                    self._disk.files.remove(self._temporary)
                self._temporary = None
            with suppress(OSError):
                self._close()

    def _publish(self, data: bytes | bytearray) -> None:
        self._disk.sync(self._add(data))
        assert self._temporary is not None
        with self._disk.changing_names(self._path.parent):
            self._disk.files.rename(self._temporary, self._path)
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
                if self._is_ours(self._descriptor, path):
                    return self._descriptor
                # Before we had its lock it was taken for a dead writer's: it goes, and not by us.
                self._temporary = None
                self._close()
        raise self._disk.broken_by("too many files were left behind")

    def _is_ours(self, descriptor: int, path: Path) -> bool:
        files = self._disk.files
        return files.lock(descriptor) and files.is_at(descriptor, path)

    def _close(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._disk.files.close(descriptor)
