"""Appending to blobs: one open file for each, a bounded number of them."""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tidegate.blobs.filesystem.disk import Disk
from tidegate.domain.errors import BlobMissing


class Appender:
    """Appends to one blob. The caller holds its `turn`."""

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
        # Set before the flush: if that fails, no later slice may contain these bytes.
        self._end = start + len(data)
        self._disk.sync_data(descriptor)
        return start

    def close(self) -> None:
        """Close the file. Closing twice is harmless."""
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
            # Also if it existed: the process that made it may have died before flushing its name.
            with self._disk.changing_names(self._path.parent):
                end = self._disk.files.size(descriptor)
        except BaseException:
            # If kept open, its name would count as flushed and its end as known.
            self._disk.files.close(descriptor)
            raise
        self._descriptor, self._end = descriptor, end
        return descriptor

    def _cut(self, descriptor: int, start: int, length: int) -> None:
        try:
            self._disk.files.truncate(descriptor, start)
        except OSError:
            # The torn bytes stay, so the next bytes go beyond the furthest place they may reach.
            self._end = start + length


class Appenders:
    """Lends appenders by name, and keeps the latest open, at most `handles_max` unused ones."""

    def __init__(self, disk: Disk, *, handles_max: int) -> None:
        assert handles_max >= 0, handles_max
        self._disk = disk
        self._handles_max = handles_max
        self._guard = threading.Lock()
        self._appenders: OrderedDict[str, Appender] = OrderedDict()

    @contextmanager
    def lend(self, name: str) -> Iterator[Appender]:
        """Lend the one appender of this name; other callers wait until it is returned."""
        with self._guard:
            appender = self._appenders.setdefault(
                name, Appender(self._disk, self._disk.root / name)
            )
            self._appenders.move_to_end(name)
            appender.users += 1
        try:
            with appender.turn:
                yield appender
        finally:
            with self._guard:
                appender.users -= 1
                self._close_beyond(self._handles_max)

    def close(self) -> None:
        """Close every unused appender."""
        with self._guard:
            self._close_beyond(0)

    def _close_beyond(self, handles_max: int) -> None:
        # One in use is never closed: a second appender of its name would write over its bytes.
        resting = [name for name, appender in self._appenders.items() if appender.users == 0]
        for name in resting[: max(len(resting) - handles_max, 0)]:
            # Its bytes were flushed by the append that wrote them.
            with suppress(OSError):
                self._appenders.pop(name).close()
