"""SQLite's file layer upon a disk that forgets what was not flushed.

The bytes of the database, its log and its journal lie on a `PowerLossDisk`. Empty files of the same
names in the machine's own file system carry what lives no longer than processes do: locks, and the
memory that connections share.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
from typing_extensions import Buffer, override

from testkit.power.disk import PowerLossDisk

_ON_DISK = apsw.SQLITE_OPEN_MAIN_DB | apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
_NEW_NAMES_FLUSHED = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
_numbers = itertools.count()


class PowerLossVfs(apsw.VFS):
    """Files of SQLite on a `PowerLossDisk`. `flushes` is False on a disk whose flushes do nothing.

    It flushes names as SQLite's own layer for Unix does: a new log or journal's with the first
    flush of its bytes, and a removed file's where SQLite asks for it.
    """

    def __init__(self, name: str, disk: PowerLossDisk, *, flushes: bool) -> None:
        super().__init__(name, base="")
        self.disk = disk
        self.flushes = flushes

    @override
    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        assert name is not None, "a temporary file, though these are kept in memory"
        assert flags[0] & _ON_DISK, flags
        path = Path(name if isinstance(name, str) else name.filename())
        is_new = not self.disk.exists(path)
        if is_new and not flags[0] & apsw.SQLITE_OPEN_CREATE:
            raise apsw.CantOpenError(f"There is no '{path}'.")
        number = self.disk.make(path) if is_new else self.disk.find(path)
        path.touch()
        return _File(
            self, name, flags, number, flushes_name=bool(is_new and flags[0] & _NEW_NAMES_FLUSHED)
        )

    @override
    def xDelete(self, filename: str, syncdir: bool) -> None:
        path = Path(filename)
        self.disk.remove(path)
        if syncdir and self.flushes:
            self.disk.sync(self.disk.find(path.parent))
        path.unlink(missing_ok=True)

    @override
    def xAccess(self, pathname: str, flags: int) -> bool:
        # As on Unix, where an empty file counts as none.
        path = Path(pathname)
        return self.disk.exists(path) and self.disk.size(self.disk.find(path)) > 0


class _File(apsw.VFSFile):
    def __init__(
        self,
        vfs: PowerLossVfs,
        name: str | apsw.URIFilename,
        flags: list[int],
        number: int,
        *,
        flushes_name: bool,
    ) -> None:
        super().__init__("", name, flags)
        self._vfs = vfs
        self._disk = vfs.disk
        self._number = number
        self._directory = Path(name if isinstance(name, str) else name.filename()).parent
        self._flushes_name = flushes_name

    @override
    def xRead(self, amount: int, offset: int) -> bytes:
        return self._disk.read(self._number, amount, offset)

    @override
    def xWrite(self, data: Buffer, offset: int) -> None:
        self._disk.write(self._number, bytes(data), offset)

    @override
    def xTruncate(self, newsize: int) -> None:
        self._disk.truncate(self._number, newsize)

    @override
    def xFileSize(self) -> int:
        return self._disk.size(self._number)

    @override
    def xSync(self, flags: int) -> None:
        if not self._vfs.flushes:
            return
        self._disk.sync(self._number)
        if self._flushes_name:
            self._disk.sync(self._disk.find(self._directory))
            self._flushes_name = False


@contextmanager
def sqlite_on(disk: PowerLossDisk, *, flushes: bool = True) -> Iterator[str]:
    """Yield the name of a file layer upon this disk, known to SQLite until the block ends."""
    name = f"tidegate-power-loss-{next(_numbers)}"
    vfs = PowerLossVfs(name, disk, flushes=flushes)
    try:
        yield name
    finally:
        vfs.unregister()
