"""A look at a SQLite ledger that changes nothing in it, whether or not others work on it."""

from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import apsw
import msgspec

from tidegate.stores import sql
from tidegate.stores.health import LedgerHealth, Waiting
from tidegate.stores.sqlite.connection import MIGRATIONS, translated
from tidegate.stores.sqlite.rows import select

SQL = sql.load("tidegate.stores.sqlite", "health.sql")
BUSY_MS = 2_000
HEADER_BYTES = 100
VERSIONS = slice(18, 20)  # The versions of the file format for writing and for reading.
WAL_VERSIONS = b"\x02\x02"


class _CountRow(msgspec.Struct, frozen=True, array_like=True):
    count: int


class _StatusRow(msgspec.Struct, frozen=True, array_like=True):
    status: str
    count: int


class _OldestRow(msgspec.Struct, frozen=True, array_like=True):
    batch_id: str
    status: str
    created_at: float
    expires_at: float
    waiting_for: str | None


def look(path: Path, *, now: float) -> LedgerHealth:
    """Return how the ledger at `path` stands at Unix time `now`.

    Not a byte of the ledger or its journal changes; SQLite may only make or refresh the index of
    its journal (`-shm`) where processes died without closing it.

    Raises:
        StorageBroken: it is damaged, or no SQLite database.
        StoreUnavailable: it can't be opened or read.
    """
    try:
        with closing(_opened(path)) as connection:
            return _read(connection, _journal(path), now)
    except apsw.Error as exc:
        raise translated(exc, path) from exc


def _opened(path: Path) -> apsw.Connection:
    wal = path.with_name(f"{path.name}-wal")
    size = 0
    with suppress(FileNotFoundError):
        size = wal.stat().st_size
    # Without a journal nobody writes, and nothing beside the file itself need be touched.
    quiet = "" if size else "&immutable=1"
    connection = apsw.Connection(
        f"file:{quote(str(path.absolute()))}?mode=ro{quiet}",
        flags=apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI,
    )
    connection.set_busy_timeout(BUSY_MS)
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    return connection


def _journal(path: Path) -> str:
    """Return the kind of journal that the header of the file names.

    SQLite itself says what it uses, which is none while it takes the file for immutable.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    return "wal" if header[VERSIONS] == WAL_VERSIONS else "rollback"


def _read(connection: apsw.Connection, journal: str, now: float) -> LedgerHealth:
    schema = select(connection, SQL["read_version"], {}, _CountRow)[0].count
    engine = f"SQLite {apsw.sqlite_lib_version()}"
    known = len(MIGRATIONS)
    if not 1 <= schema <= known:
        return LedgerHealth(
            engine=engine, journal=journal, schema=schema, schema_known=known, batches={}
        )
    statuses = select(connection, SQL["count_batches"], {}, _StatusRow)
    oldest = select(connection, SQL["find_oldest"], {}, _OldestRow)
    # The table of the living came with the second schema.
    living = select(connection, SQL["count_living"], {"now": now}, _CountRow) if schema > 1 else []
    return LedgerHealth(
        engine=engine,
        journal=journal,
        schema=schema,
        schema_known=known,
        processors=living[0].count if living else 0,
        batches={row.status: row.count for row in statuses},
        oldest=_waiting(oldest[0]) if oldest else None,
        overdue=select(connection, SQL["count_overdue"], {"now": now}, _CountRow)[0].count,
    )


def _waiting(row: _OldestRow) -> Waiting:
    return Waiting(
        batch_id=row.batch_id,
        status=row.status,
        created_at=row.created_at,
        expires_at=row.expires_at,
        waiting_for=row.waiting_for,
    )
