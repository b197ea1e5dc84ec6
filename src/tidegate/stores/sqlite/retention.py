"""Files and batches of the SQLite ledger that are no longer wanted. One transaction each."""

from collections.abc import Sequence

import apsw
import msgspec

from tidegate.domain.batch import TERMINAL, Batch, Status
from tidegate.domain.ledger import files as file_rules
from tidegate.domain.ledger.values import OldBatch, Purged, UnusedFile
from tidegate.stores import sql
from tidegate.stores.sqlite import batches, files
from tidegate.stores.sqlite.rows import (
    TERMINAL_JSON,
    BatchRow,
    FileRow,
    FlagRow,
    Moment,
    NameRow,
    Value,
    select,
    select_one,
    write,
)

SQL = sql.load("tidegate.stores.sqlite", "retention.sql")


class _UnusedRow(msgspec.Struct, frozen=True, array_like=True):
    id: str
    tenant: str
    bytes: int
    why: str


class _OldRow(msgspec.Struct, frozen=True, array_like=True):
    id: str
    tenant: str
    ended_at: float


def list_unused_files(moment: Moment, *, limit: int) -> list[UnusedFile]:
    """Return files that no user sees and no live batch holds."""
    connection, now = moment
    assert limit > 0, limit
    values: dict[str, Value] = {"now": now, "limit": limit, "terminal": TERMINAL_JSON}
    rows = select(connection, SQL["list_unused_files"], values, _UnusedRow)
    return [
        UnusedFile(file_id=row.id, tenant=row.tenant, bytes=row.bytes, why=row.why) for row in rows
    ]


def release_files(moment: Moment, file_ids: Sequence[str], *, keep_seconds: float) -> list[str]:
    """Release the bytes of unused files."""
    connection, now = moment
    gone: list[str] = []
    for file_id in dict.fromkeys(file_ids):
        row = files.get_row(connection, file_id)
        if row is None:
            continue
        if not row.released:
            if not _is_unused(connection, row, now):
                continue
            values: dict[str, Value] = {"file_id": file_id, "until": now + keep_seconds}
            write(connection, SQL["retain_parts"], values)
            write(connection, files.SQL["remove_parts"], values)
            write(connection, SQL["release_file"], values)
        gone.append(file_id)
    return gone


def list_ending(moment: Moment, *, limit: int) -> list[Batch]:
    """Return batches of which no line may run."""
    connection, now = moment
    assert limit > 0, limit
    values: dict[str, Value] = {"now": now, "limit": limit, "terminal": TERMINAL_JSON}
    return [row.batch() for row in select(connection, SQL["list_ending"], values, BatchRow)]


def list_old_batches(moment: Moment, *, ended_seconds: float, limit: int) -> list[OldBatch]:
    """Return batches that ended long ago."""
    connection, now = moment
    assert limit > 0, limit
    values: dict[str, Value] = {"ended_by": now - ended_seconds, "limit": limit}
    rows = select(connection, SQL["list_old_batches"], values, _OldRow)
    return [OldBatch(batch_id=row.id, tenant=row.tenant, ended_at=row.ended_at) for row in rows]


def drop_batches(connection: apsw.Connection, batch_ids: Sequence[str]) -> int:
    """Remove terminal batches and all that belongs to them but files."""
    dropped = 0
    for batch_id in dict.fromkeys(batch_ids):
        row = batches.get_row(connection, batch_id)
        if row is None or Status(row.status) not in TERMINAL:
            continue
        values: dict[str, Value] = {"batch_id": batch_id}
        write(connection, SQL["remove_writers"], values)
        write(connection, SQL["remove_shards"], values)
        write(connection, SQL["remove_units"], values)
        write(connection, SQL["remove_batch"], values)
        dropped += 1
    return dropped


def purge(moment: Moment, *, age_seconds: float, limit: int) -> Purged:
    """Remove rows that no request can reach."""
    connection, now = moment
    assert limit > 0, limit
    values: dict[str, Value] = {"created_by": now - age_seconds, "limit": limit}
    uploads = write(connection, SQL["remove_abandoned_uploads"], values)
    rows = select(connection, SQL["list_purgeable_files"], values, NameRow)
    for row in rows:
        uploads += write(connection, SQL["remove_uploads_of"], {"file_id": row.name})
        write(connection, SQL["remove_file"], {"file_id": row.name})
    return Purged(files=len(rows), uploads=uploads)


def list_retained(moment: Moment, *, limit: int) -> list[str]:
    """Return blobs that need not be kept for readers any longer."""
    connection, now = moment
    assert limit > 0, limit
    rows = select(connection, SQL["list_retained"], {"now": now, "limit": limit}, NameRow)
    return [row.name for row in rows]


def forget_retained(connection: apsw.Connection, names: Sequence[str]) -> None:
    """Remove the retention of these blobs."""
    values = {"names": msgspec.json.encode(list(names)).decode()}
    write(connection, SQL["forget_retained"], values)


def _is_unused(connection: apsw.Connection, row: FileRow, now: float) -> bool:
    if file_rules.unused_because(row.file(), now, deleted=bool(row.deleted)) is None:
        return False
    values: dict[str, Value] = {"file_id": row.id, "terminal": TERMINAL_JSON}
    held = select_one(connection, SQL["is_held"], values, FlagRow)
    return held is not None and not held.flag
