"""The health of a SQLite ledger, read without changing it, whether or not others work on it."""

from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

import apsw
import msgspec

from tidegate.stores import sql
from tidegate.stores.health import OldestBatch, Remark, StoreHealth
from tidegate.stores.sqlite.connection import MIGRATIONS, translated
from tidegate.stores.sqlite.rows import CountRow, select

SQL = sql.load("tidegate.stores.sqlite", "health.sql")
BUSY_MS = 2_000
HEADER_BYTES = 100
VERSIONS = slice(18, 20)  # The versions of the file format for writing and for reading.
WAL_VERSIONS = b"\x02\x02"
_ROLLBACK = Remark(
    message="Its journal is 'rollback', not 'wal'.",
    advice="Start `tidegate serve` once, which sets it; use no other program on this file.",
)


class _StatusRow(msgspec.Struct, frozen=True, array_like=True):
    status: str
    count: int


class _OldestRow(msgspec.Struct, frozen=True, array_like=True):
    batch_id: str
    status: str
    created_at: float
    expires_at: float
    waiting_for: str | None


def look(path: Path, *, now: float) -> StoreHealth:
    """Return the state of the ledger at `path` at Unix time `now`.

    Not a byte of the ledger or its journal changes; SQLite may only make or refresh the index of
    its journal (`-shm`) if processes died without closing it.

    Raises:
        StorageBroken: it is damaged, or no SQLite database.
        StoreUnavailable: it can't be opened or read.
    """
    engine = f"SQLite {apsw.sqlite_lib_version()}"
    if not path.exists():
        return StoreHealth(
            engine=engine, durable=True, exists=False, schema=0, schema_known=len(MIGRATIONS)
        )
    try:
        with closing(_opened(path)) as connection:
            return _read(connection, _journal(path), now, engine)
    except apsw.Error as exc:
        raise translated(exc, path) from exc


def _opened(path: Path) -> apsw.Connection:
    wal = path.with_name(f"{path.name}-wal")
    size = 0
    with suppress(FileNotFoundError):
        size = wal.stat().st_size
    # Without a journal nobody writes, and only the file itself is opened.
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

    SQLite itself would report none while it takes the file for immutable.
    """
    with path.open("rb") as file:
        header = file.read(HEADER_BYTES)
    return "wal" if header[VERSIONS] == WAL_VERSIONS else "rollback"


def _read(connection: apsw.Connection, journal: str, now: float, engine: str) -> StoreHealth:
    schema = select(connection, SQL["read_version"], {}, CountRow)[0].count
    known = len(MIGRATIONS)
    remarks = () if journal == "wal" else (_ROLLBACK,)
    if not 1 <= schema <= known:
        return StoreHealth(
            engine=engine, durable=True, schema=schema, schema_known=known, remarks=remarks
        )
    statuses = select(connection, SQL["count_batches"], {}, _StatusRow)
    oldest = select(connection, SQL["find_oldest"], {}, _OldestRow)
    # The table of members came with the second schema.
    members = select(connection, SQL["count_members"], {"now": now}, CountRow) if schema > 1 else []
    return StoreHealth(
        engine=engine,
        durable=True,
        schema=schema,
        schema_known=known,
        members=members[0].count if members else 0,
        batches={row.status: row.count for row in statuses},
        oldest=OldestBatch(**msgspec.structs.asdict(oldest[0])) if oldest else None,
        overdue=select(connection, SQL["count_overdue"], {"now": now}, CountRow)[0].count,
        remarks=remarks,
    )
