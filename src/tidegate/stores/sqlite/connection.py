"""Connections to the SQLite file: opening, migrating, group commit, and the names of its errors.

The one place that knows how SQLite fails. The writer runs a group of steps in one transaction,
each in a savepoint of its own, and no step is acknowledged before the COMMIT has been synced.
"""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import LiteralString

import apsw
from typing_extensions import override

from tidegate.domain.errors import (
    SettingsInvalid,
    StorageBroken,
    StorageFull,
    StoreUnavailable,
    TidegateError,
)
from tidegate.stores import sql
from tidegate.stores.lanes import Step, Worker

SQL = sql.load("tidegate.stores.sqlite", "connection.sql")
MIGRATIONS: tuple[LiteralString, ...] = (
    sql.read("tidegate.stores.sqlite.migrations", "0001_first.sql"),
    sql.read("tidegate.stores.sqlite.migrations", "0002_upkeep.sql"),
    sql.read("tidegate.stores.sqlite.migrations", "0003_poll.sql"),
)
BUSY_SECONDS = 10.0
_WAL_PAUSE_MS = 10
_FLUSH_FAILURES = frozenset({apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC})


def translated(error: BaseException, path: Path, *, committing: bool = False) -> BaseException:
    """Return our error for an error of SQLite; any other error is returned unchanged.

    An input/output error is final if it may have cost durability: in a flush, or while
    committing (PROTOCOL 13).
    """
    ours: TidegateError
    match error:
        case apsw.FullError():
            ours = StorageFull(f"No room is left for the ledger '{path}'; free some space.")
        case apsw.IOError() if committing or _detail(error) in _FLUSH_FAILURES:
            ours = StorageBroken(
                f"Flushing the ledger '{path}' failed ({error}); check the disk and start again."
            )
        case apsw.CorruptError() | apsw.NotADBError():
            ours = StorageBroken(
                f"The ledger '{path}' is damaged or no SQLite database ({error}); restore it from "
                "a backup or name another path."
            )
        case apsw.BusyError() | apsw.LockedError() | apsw.ProtocolError():
            ours = StoreUnavailable(
                f"Another process kept the ledger '{path}' locked for too long; try again."
            )
        case apsw.CantOpenError() | apsw.ReadOnlyError() | apsw.PermissionsError():
            ours = StoreUnavailable(
                f"The ledger '{path}' can't be used ({error}); check that its directory exists "
                "and that this process may write there."
            )
        case apsw.IOError():
            ours = StoreUnavailable(
                f"The ledger '{path}' could not be read or written ({error}); check the disk."
            )
        case apsw.Error():
            ours = StoreUnavailable(f"The ledger '{path}' gave no answer ({error}); try again.")
        case _:
            return error
    ours.__cause__ = error
    return ours


def migrate(connection: apsw.Connection, path: Path, migrations: Sequence[str]) -> None:
    """Bring the schema up to date; processes that do so together wait for each other.

    Raises:
        SettingsInvalid: the file was written by a newer Tidegate.
    """
    if _version(connection) == len(migrations):
        return
    connection.execute(SQL["begin_write"])
    try:
        version = _version(connection)
        if version > len(migrations):
            raise SettingsInvalid(
                f"The ledger '{path}' has schema {version}, and this Tidegate knows "
                f"{len(migrations)} at most; use the newer version or name another path."
            )
        for script in migrations[version:]:
            connection.execute(script).fetchall()
        assert _version(connection) == len(migrations), "a migration must set user_version"
        connection.execute(SQL["commit"])
    finally:
        if connection.in_transaction:
            connection.execute(SQL["roll_back"])


class _Session(Worker):
    """A worker with one connection, opened with the first group of steps."""

    def __init__(self, path: Path, *, busy_seconds: float, vfs: str | None) -> None:
        self._path = path
        self._vfs = vfs
        self._busy_ms = round(busy_seconds * 1000)
        self._connection: apsw.Connection | None = None
        self._broken = False

    @property
    def connection(self) -> apsw.Connection:
        """The open connection: for steps, on the lane's thread."""
        assert self._connection is not None, "used outside a step"
        return self._connection

    @override
    def run(self, steps: Sequence[Step]) -> None:
        try:
            if self._broken:
                raise StorageBroken(
                    f"The ledger '{self._path}' failed before and can't be trusted; "
                    "end this process."
                )
            if self._connection is None:
                self._connection = self._open()
            self._run(self._connection, steps)
        except (apsw.Error, TidegateError) as error:
            self._fail(steps, error)

    @override
    def close(self) -> None:
        if self._connection is not None:
            self._connection.close(True)
            self._connection = None

    @abstractmethod
    def _open(self) -> apsw.Connection:
        """Return a connection that is ready for use."""

    @abstractmethod
    def _run(self, connection: apsw.Connection, steps: Sequence[Step]) -> None:
        """Run the steps; raise only what concerns all of them."""

    def _connect(self, flags: int) -> apsw.Connection:
        if self._vfs is None:
            # SQLite would let others read the file; its companions take over these permissions. A
            # path that can't be made is named by the connection in its own words.
            with suppress(OSError):
                self._path.touch(mode=0o600)
        connection = apsw.Connection(str(self._path), flags=flags, vfs=self._vfs)
        connection.set_busy_timeout(self._busy_ms)
        # Otherwise SQLite plans some statements again each time that a value is bound to them,
        # among them one of each commit: that costs several times what running it does.
        connection.config(apsw.SQLITE_DBCONFIG_ENABLE_QPSG, 1)
        connection.execute(SQL["settings"]).fetchall()
        return connection

    def _attempt(self, step: Step) -> None:
        try:
            step.run()
        except Exception as error:  # noqa: BLE001 -- any error is the caller's outcome, and the lane serves others
            self._note(step, error)

    def _note(self, step: Step, error: BaseException, *, committing: bool = False) -> None:
        step.error = translated(error, self._path, committing=committing)
        self._broken = self._broken or isinstance(step.error, StorageBroken)

    def _fail(
        self, steps: Sequence[Step], error: BaseException, *, committing: bool = False
    ) -> None:
        for step in steps:
            self._note(step, error, committing=committing)


class Writer(_Session):
    """Runs each group of steps in one transaction (group commit)."""

    @override
    def _open(self) -> apsw.Connection:
        connection = self._connect(apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE)
        try:
            self._use_wal(connection)
            migrate(connection, self._path, MIGRATIONS)
        except BaseException:
            connection.close(True)
            raise
        return connection

    @override
    def _run(self, connection: apsw.Connection, steps: Sequence[Step]) -> None:
        try:
            connection.execute(SQL["begin_write"])
            for step in steps:
                connection.execute(SQL["begin_step"])
                self._attempt(step)
                if not connection.in_transaction:  # SQLite gave up the whole transaction.
                    self._share(steps, step)
                    return
                if step.error is not None:
                    connection.execute(SQL["undo_step"])
                connection.execute(SQL["end_step"])
            self._commit(connection, steps)
        finally:
            if connection.in_transaction:
                connection.execute(SQL["roll_back"])

    def _commit(self, connection: apsw.Connection, steps: Sequence[Step]) -> None:
        try:
            connection.execute(SQL["commit"])
        except apsw.Error as error:
            # Also for steps that were refused: others' lost writes may have been the reason.
            self._fail(steps, error, committing=True)

    def _share(self, steps: Sequence[Step], failed: Step) -> None:
        assert failed.error is not None, "a step ended the transaction"
        for step in steps:
            step.error = failed.error

    def _use_wal(self, connection: apsw.Connection) -> None:
        # SQLite doesn't always wait for its busy time-out here, so wait for it by hand.
        for _ in range(self._busy_ms // _WAL_PAUSE_MS):
            try:
                connection.execute(SQL["use_wal"]).fetchall()
            except apsw.BusyError:
                apsw.sleep(_WAL_PAUSE_MS)
            else:
                return
        connection.execute(SQL["use_wal"]).fetchall()


class Reader(_Session):
    """Runs each step in a read transaction of its own: one instant for all it reads."""

    @override
    def _open(self) -> apsw.Connection:
        connection = self._connect(apsw.SQLITE_OPEN_READWRITE)
        connection.execute(SQL["only_read"])
        return connection

    @override
    def _run(self, connection: apsw.Connection, steps: Sequence[Step]) -> None:
        for step in steps:
            try:
                self._run_one(connection, step)
            except apsw.Error as error:
                self._note(step, error)  # It concerns no other step.

    def _run_one(self, connection: apsw.Connection, step: Step) -> None:
        connection.execute(SQL["begin_read"])
        try:
            self._attempt(step)
        finally:
            if connection.in_transaction:  # If reading failed, SQLite has rolled back by itself.
                connection.execute(SQL["roll_back"])


def _version(connection: apsw.Connection) -> int:
    version = connection.execute(SQL["read_version"]).fetchall()[0][0]
    assert isinstance(version, int), version
    return version


def _detail(error: apsw.Error) -> int:
    # The extended result code, which the type stubs don't know.
    detail = getattr(error, "extendedresult", 0)
    assert isinstance(detail, int), detail
    return detail
