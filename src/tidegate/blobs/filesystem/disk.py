"""A directory tree that is written durably, and its state after a failure (PROTOCOL 13)."""

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidegate.blobs.filesystem.files import Entry, Files
from tidegate.domain.errors import StorageBroken, StorageFull

MARK = "~"
KNOWN_DIRECTORIES_MAX = 10_000
# How often a directory is made again while other processes remove it because it is empty.
DIRECTORY_TRIES_MAX = 100

_SHORTAGES = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
)
# Errors of flushing on file systems that never write, or never flush, directories.
_NOTHING_TO_FLUSH = frozenset({errno.EROFS, errno.EINVAL, errno.ENOTSUP})


class Disk:
    """The tree below one root. Calls block; any thread may call any method.

    A failed flush, or any failure to write that is not a shortage, breaks the disk: from then on
    everything inside `writing()` raises `StorageBroken`.
    """

    def __init__(self, root: Path, files: Files) -> None:
        self.root = root.absolute()
        self.files = files
        self._broken: str | None = None
        # Directories that exist and whose names are flushed. Adding and removing needs the lock,
        # reading does not.
        self._known: set[Path] = set()
        self._changing = threading.Lock()
        self._numbers = itertools.count()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Refuse to write on a broken disk, and translate errors inside the block.

        Raises:
            StorageFull: there is a shortage; the disk can still be trusted.
            StorageBroken: it can't be trusted, now or since an earlier failure.
        """
        if self._broken is not None:
            raise StorageBroken(self._broken)
        try:
            yield
        except OSError as error:
            raise self.judged(error) from error

    def is_short(self, error: OSError) -> bool:
        """Return whether an operation failed because of too little space, descriptors or memory."""
        return error.errno in _SHORTAGES

    def judged(self, error: OSError) -> StorageFull | StorageBroken:
        """Return what a failed operation means; unless it is a shortage, the disk is broken."""
        if self.is_short(error):
            return StorageFull(f"'{self.root}' takes no more ({error.strerror}): free some space.")
        return self.broken_by(error.strerror or "unknown")

    def broken_by(self, reason: str) -> StorageBroken:
        """Refuse to write from now on; return the error to raise."""
        if self._broken is None:
            self._broken = (
                f"Durability can't be promised any more in '{self.root}' ({reason}): "
                "check the disk, then start Tidegate again."
            )
        return StorageBroken(self._broken)

    def entries(self, path: Path) -> list[Entry]:
        """Return the entries of a directory; none if it does not exist.

        Raises:
            StorageFull: there is a shortage.
            StorageBroken: it can't be read.
        """
        try:
            return self.files.list_directory(path)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise self.judged(error) from error

    def temporary_path(self, path: Path) -> Path:
        """Return a name beside `path` that no blob has and no file of this process had."""
        return path.with_name(f"{path.name}{MARK}{os.getpid()}-{next(self._numbers)}")

    def ensure_directory(self, path: Path) -> None:
        """Make a directory in or at the root durably, with its parents."""
        if path not in self._known:
            with self._changing:
                self._ensure_again(path)

    def create(self, path: Path) -> int:
        """Make a new empty file, and durably all directories that lead to it; open it.

        Raises:
            FileExistsError: the name is taken.
        """
        self.ensure_directory(path.parent)
        try:
            descriptor = self.files.create(path)
        except FileNotFoundError:
            # Meanwhile another process removed the empty directory.
            return self._create_again(path)
        try:
            # From here on the directory can't be removed. If it was removed and made again since
            # it was looked for, this waits until the new one's name is flushed.
            self.ensure_directory(path.parent)
        except BaseException:
            self.files.close(descriptor)
            with suppress(OSError):
                self.files.remove(path)
            raise
        return descriptor

    def remove_if_empty(self, path: Path) -> None:
        """Remove a directory below the root if nothing is in it; never fails."""
        if path == self.root:
            return
        with self._changing:
            was_known = path in self._known
            self._known.discard(path)  # First, so that a new directory never counts as known.
            try:
                self.files.remove_directory(path)
            except OSError as error:
                # It holds something, as a rule; one that can't be removed only takes a little room.
                if was_known and error.errno != errno.ENOENT:
                    self._known.add(path)

    def _create_again(self, path: Path) -> int:
        # With the lock no thread of ours can remove the directory; other processes still can.
        with self._changing:
            for tries_left in reversed(range(DIRECTORY_TRIES_MAX)):
                self._known.clear()
                self._ensure_again(path.parent)
                try:
                    return self.files.create(path)
                except FileNotFoundError:
                    if not tries_left:
                        raise
        raise AssertionError("a bound of at least one try")

    def _ensure_again(self, path: Path) -> None:
        """Make a directory, also if another process removed a known parent."""
        for tries_left in reversed(range(DIRECTORY_TRIES_MAX)):
            try:
                self._ensure(path)
            except FileNotFoundError:
                if not tries_left:
                    raise
                self._known.clear()
            else:
                return

    def _ensure(self, path: Path) -> None:
        if path in self._known:
            return
        if path == self.root:
            self._ensure_root(path)
        else:
            self._ensure(path.parent)
            # Also if it exists: the process that made it may have died before flushing its name.
            with self.changing_names(path.parent):
                self.files.make_directory(path)
        if len(self._known) >= KNOWN_DIRECTORIES_MAX:
            self._known.clear()
        self._known.add(path)

    def write_all(self, descriptor: int, data: bytes | bytearray, offset: int) -> None:
        """Write every byte at an offset, in as many steps as it takes."""
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                with view[written:] as rest:
                    taken = self.files.write(descriptor, rest, offset + written)
                if taken <= 0:
                    raise OSError(errno.EIO, "the file system took no bytes")
                written += taken

    def sync(self, descriptor: int) -> None:
        """Flush a file or a directory.

        Raises:
            StorageBroken: it failed, and the disk is broken.
        """
        try:
            self.files.sync(descriptor)
        except OSError as error:
            raise self._unflushed(error) from error

    def sync_data(self, descriptor: int) -> None:
        """Flush the bytes of a file.

        Raises:
            StorageBroken: it failed, and the disk is broken.
        """
        try:
            self.files.sync_data(descriptor)
        except OSError as error:
            raise self._unflushed(error) from error

    @contextmanager
    def changing_names(self, path: Path) -> Iterator[None]:
        """Flush the names in a directory after what is done inside the block.

        The directory is opened before, so that no change is left unflushed for want of a
        descriptor: failing to open is no failed flush.

        Raises:
            OSError: the directory can't be opened, and nothing was done.
            StorageBroken: the flush failed, and the disk is broken.
        """
        descriptor = self.files.open_directory(path)
        try:
            yield
            self.sync(descriptor)
        finally:
            self.files.close(descriptor)

    def _unflushed(self, error: OSError) -> StorageBroken:
        # Even a shortage: the kernel has dropped the pages, so a second flush would prove nothing.
        return self.broken_by(f"a flush failed: {error.strerror or 'unknown'}")

    def _ensure_root(self, path: Path) -> None:
        try:
            made = self.files.make_directory(path)
        except FileNotFoundError:
            self._ensure_root(path.parent)
            made = self.files.make_directory(path)
        if not made:
            self._flush_older(path.parent)
            return
        with self.changing_names(path.parent):
            pass

    def _flush_older(self, path: Path) -> None:
        # The name may be older than us, in a place that we may not open or that is not for
        # writing: then the process that made it flushes it, if any.
        try:
            descriptor = self.files.open_directory(path)
        except PermissionError:
            return
        try:
            self.files.sync(descriptor)
        except OSError as error:
            if error.errno not in _NOTHING_TO_FLUSH:
                raise self._unflushed(error) from error
        finally:
            self.files.close(descriptor)
