"""Blobs that grow: one open file for each, a bounded number at a time."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidegate.blobs.disk import Disk
from tidegate.domain.errors import BlobMissing


class Tail:
    """The growing end of one blob. Whoever calls has its turn."""

    def __init__(self, disk: Disk, path: Path) -> None:
        self.turn = threading.Lock()
        self.users = 0
        self._disk = disk
        self._path = path
        self._descriptor: int | None = None
        self._end = 0

    def append(self, data: bytes, *, after: int) -> int:
        """Add bytes durably behind the first `after` ones; return their offset.

        The file is made only if `after` is 0.

        Raises:
            FileNotFoundError: there is no file, though bytes of it were acknowledged.
            BlobMissing: the file ends before `after`.
        """
        if self._descriptor is not None and not self._disk.files.is_at(
            self._descriptor, self._path
        ):
            # The file was unlinked or replaced: bytes added to it would be gone when it is closed.
            self.close()
        descriptor = self._descriptor
        if descriptor is None:
            descriptor = self._open(makes=not after)
        start = self._end
        if start < after:
            raise BlobMissing(
                f"Blob '{self._path.name}' has {start} bytes, not the {after} acknowledged ones."
            )
        try:
            self._disk.write_all(descriptor, data, start)
        except OSError:
            self._cut(descriptor, start, len(data))
            raise
        # Moved on before the flush: should that fail, no later slice may hold these bytes.
        self._end = start + len(data)
        self._disk.sync_data(descriptor)
        return start

    def close(self) -> None:
        """Let go of the file. Twice is harmless."""
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._disk.files.close(descriptor)

    def _open(self, *, makes: bool) -> int:
        if makes:
            self._disk.ensure_directory(self._path.parent)
        try:
            descriptor = self._disk.files.open_to_write(self._path)
        except FileNotFoundError:
            if not makes:
                raise
            descriptor = self._disk.create(self._path)
        try:
            # Also when it was there: whoever made it may have died before flushing its name.
            with self._disk.changing_names(self._path.parent):
                end = self._disk.files.size(descriptor)
        except BaseException:
            # Kept open it would be taken for one whose name is flushed and whose end is known.
            self._disk.files.close(descriptor)
            raise
        self._descriptor, self._end = descriptor, end
        return descriptor

    def _cut(self, descriptor: int, start: int, length: int) -> None:
        try:
            self._disk.files.truncate(descriptor, start)
        except OSError:
            # The junk stays, so the next bytes go beyond the furthest place it may reach.
            self._end = start + length


class Tails:
    """Lends tails by name, and keeps those used last open, at most `handles_max` at rest."""

    def __init__(self, disk: Disk, *, handles_max: int) -> None:
        assert handles_max >= 0, handles_max
        self._disk = disk
        self._handles_max = handles_max
        self._guard = threading.Lock()
        self._tails: OrderedDict[str, Tail] = OrderedDict()

    @contextmanager
    def lend(self, name: str) -> Iterator[Tail]:
        """Lend the one tail of this name; others wait for their turn until it comes back."""
        with self._guard:
            tail = self._tails.setdefault(name, Tail(self._disk, self._disk.root / name))
            self._tails.move_to_end(name)
            tail.users += 1
        try:
            with tail.turn:
                yield tail
        finally:
            with self._guard:
                tail.users -= 1
                self._close_beyond(self._handles_max)

    def close(self) -> None:
        """Close every tail that nobody uses."""
        with self._guard:
            self._close_beyond(0)

    def _close_beyond(self, handles_max: int) -> None:
        # One in use is never closed: a second tail of its name would write over its bytes.
        resting = [name for name, tail in self._tails.items() if tail.users == 0]
        for name in resting[: max(len(resting) - handles_max, 0)]:
            # Its bytes were flushed by the append that wrote them.
            with suppress(OSError):
                self._tails.pop(name).close()
