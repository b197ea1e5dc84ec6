"""Files and batches of the SQLite ledger that are no longer wanted. One transaction each."""

from collections.abc import Sequence

import apsw
import msgspec

from tidegate.domain.batch import TERMINAL, Batch, Status
from tidegate.domain.ledger import files as file_rules
from tidegate.domain.ledger.values import OldBatch, Purged, UnusedFile
from tidegate.stores import sql
from tidegate.stores.sqlite import batches, files
from tidegate.stores.sqlite.rows import BatchRow, FileRow, Value, select, select_one, write

SQL = sql.load("tidegate.stores.sqlite", "retention.sql")
_TERMINAL = msgspec.json.encode(sorted(TERMINAL)).decode()


class _UnusedRow(msgspec.Struct, frozen=True, array_like=True):
    id: str
    tenant: str
    bytes: int
    why: str


class _OldRow(msgspec.Struct, frozen=True, array_like=True):
    id: str
    tenant: str
    ended_at: float


class _NameRow(msgspec.Struct, frozen=True, array_like=True):
    name: str


class _FlagRow(msgspec.Struct, frozen=True, array_like=True):
    flag: int


def list_unused_files(connection: apsw.Connection, *, now: float, limit: int) -> list[UnusedFile]:
    """Return files that no user sees and no live batch holds; see `Store.list_unused_files`."""
    assert limit > 0, limit
    values: dict[str, Value] = {"now": now, "limit": limit, "terminal": _TERMINAL}
    rows = select(connection, SQL["list_unused_files"], values, _UnusedRow)
    return [
        UnusedFile(file_id=row.id, tenant=row.tenant, bytes=row.bytes, why=row.why) for row in rows
    ]


def release_files(
    connection: apsw.Connection, file_ids: Sequence[str], *, now: float, keep_seconds: float
) -> list[str]:
    """Release the bytes of unused files; see `Store.release_files`."""
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


def list_ending(connection: apsw.Connection, *, now: float, limit: int) -> list[Batch]:
    """Return batches of which no line may run; see `Store.list_ending`."""
    assert limit > 0, limit
    values: dict[str, Value] = {"now": now, "limit": limit, "terminal": _TERMINAL}
    return [row.batch() for row in select(connection, SQL["list_ending"], values, BatchRow)]


def list_old_batches(connection: apsw.Connection, *, ended_by: float, limit: int) -> list[OldBatch]:
    """Return batches that ended long ago; see `Store.list_old_batches`."""
    assert limit > 0, limit
    values: dict[str, Value] = {"ended_by": ended_by, "limit": limit}
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


def purge(connection: apsw.Connection, *, created_by: float, limit: int) -> Purged:
    """Remove rows that no request can reach; see `Store.purge`."""
    assert limit > 0, limit
    values: dict[str, Value] = {"created_by": created_by, "limit": limit}
    uploads = write(connection, SQL["remove_abandoned_uploads"], values)
    rows = select(connection, SQL["list_purgeable_files"], values, _NameRow)
    for row in rows:
        uploads += write(connection, SQL["remove_uploads_of"], {"file_id": row.name})
        write(connection, SQL["remove_file"], {"file_id": row.name})
    return Purged(files=len(rows), uploads=uploads)


def list_retained(connection: apsw.Connection, *, now: float, limit: int) -> list[str]:
    """Return blobs that need not be kept for readers any longer."""
    assert limit > 0, limit
    rows = select(connection, SQL["list_retained"], {"now": now, "limit": limit}, _NameRow)
    return [row.name for row in rows]


def forget_retained(connection: apsw.Connection, names: Sequence[str]) -> None:
    """Remove the retention of these blobs."""
    values = {"names": msgspec.json.encode(list(names)).decode()}
    write(connection, SQL["forget_retained"], values)


def _is_unused(connection: apsw.Connection, row: FileRow, now: float) -> bool:
    if file_rules.unused_because(row.file(), now, deleted=bool(row.deleted)) is None:
        return False
    values: dict[str, Value] = {"file_id": row.id, "terminal": _TERMINAL}
    held = select_one(connection, SQL["is_held"], values, _FlagRow)
    return held is not None and not held.flag
