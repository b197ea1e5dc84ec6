"""Uploads and files in the SQLite ledger. Each function runs inside one transaction."""

import math
from collections.abc import Iterable, Sequence

import apsw
import msgspec

from tidegate.domain.file import File, Part, Purpose, merged
from tidegate.domain.ledger import files as file_rules
from tidegate.domain.ledger.values import Fragmented, Page
from tidegate.stores import sql
from tidegate.stores.sqlite.rows import (
    TERMINAL_JSON,
    FileRow,
    FlagRow,
    Moment,
    PartRow,
    Value,
    file_values,
    select,
    select_one,
    write,
)

SQL = sql.load("tidegate.stores.sqlite", "files.sql")


class UploadRow(msgspec.Struct, frozen=True, array_like=True):
    """Whose an upload is, and what became of it."""

    tenant: str
    blob: str
    state: str
    file_id: str | None


def begin_upload(
    connection: apsw.Connection, upload_id: str, *, tenant: str, blob: str, at: float
) -> None:
    """Record a pending upload, once."""
    values: dict[str, Value] = {"id": upload_id, "tenant": tenant, "blob": blob, "at": at}
    write(connection, SQL["begin_upload"], values)


def finish_upload(
    connection: apsw.Connection, upload_id: str, file: File, parts: Sequence[Part]
) -> File:
    """Turn a pending upload into a file."""
    upload = get_upload(connection, upload_id)
    if upload is None or upload.state == "abandoned":
        raise file_rules.upload_lost(upload_id)
    if upload.file_id is not None:
        known = get_row(connection, upload.file_id)
        assert known is not None, upload.file_id
        return known.file()
    file_rules.check_upload(file, parts, tenant=upload.tenant)
    put_file(connection, file)
    append_parts(connection, file, parts)
    mark_finished(connection, upload_id, file.id)
    return file


def mark_finished(connection: apsw.Connection, upload_id: str, file_id: str) -> None:
    """Mark a pending upload as finished, with the file that its bytes belong to."""
    changed = write(connection, SQL["finish_upload"], {"id": upload_id, "file_id": file_id})
    assert changed == 1, upload_id


def abandon_upload(connection: apsw.Connection, upload_id: str) -> bool:
    """Fence an upload."""
    write(connection, SQL["abandon_upload"], {"id": upload_id})
    upload = get_upload(connection, upload_id)
    return upload is None or upload.state == "abandoned"


def get_row(connection: apsw.Connection, file_id: str | None) -> FileRow | None:
    """Return a file's row, of any tenant, also a deleted one's."""
    return select_one(connection, SQL["get_file"], {"id": file_id}, FileRow)


def get_file(moment: Moment, tenant: str, file_id: str) -> File:
    """Return a file that the tenant can see, or raise `NotFound`."""
    connection, now = moment
    row = get_row(connection, file_id)
    if (
        row is None
        or row.tenant != tenant
        or not file_rules.is_visible(row.file(), now, deleted=bool(row.deleted))
    ):
        raise file_rules.no_file(file_id)
    return row.file()


def get_visible_parts(moment: Moment, tenant: str, file_id: str) -> tuple[File, tuple[Part, ...]]:
    """Return a file that the tenant can see with its parts, or raise `NotFound`."""
    return get_file(moment, tenant, file_id), get_parts(moment.connection, file_id)


def list_files(
    moment: Moment,
    tenant: str,
    *,
    after: str | None,
    limit: int,
    ascending: bool,
    purpose: Purpose | None,
) -> Page[File]:
    """Return a page of visible files."""
    connection, now = moment
    assert limit > 0, limit
    values: dict[str, Value] = {
        "tenant": tenant,
        "created_at": -math.inf if ascending else math.inf,
        "id": "",
        "now": now,
        "purpose": purpose,
        "limit": limit + 1,  # One more shows whether anything follows.
    }
    if after is not None:
        mark = get_row(connection, after)
        if mark is None or mark.tenant != tenant:
            raise file_rules.no_file(after, param="after")
        values |= {"created_at": mark.created_at, "id": mark.id}
    statement = SQL["list_files_up"] if ascending else SQL["list_files_down"]
    rows = select(connection, statement, values, FileRow)
    items = tuple(row.file() for row in rows[:limit])
    return Page(items=items, has_more=len(rows) > limit)


def delete_file(moment: Moment, tenant: str, file_id: str) -> None:
    """Hide a file."""
    file_rules.check_deletable(get_file(moment, tenant, file_id))
    write(moment.connection, SQL["delete_file"], {"id": file_id})


def put_file(connection: apsw.Connection, file: File) -> None:
    """Write a file, or its new length, expiry and growth if it exists."""
    write(connection, SQL["put_file"], file_values(file))


def get_parts(connection: apsw.Connection, file_id: str) -> tuple[Part, ...]:
    """Return a file's parts in their order."""
    # Decoded in one call, because there may be thousands.
    found = connection.execute(SQL["get_parts"], {"file_id": file_id}).fetchall()
    rows = msgspec.convert(found, list[PartRow])
    # Parts share one copy of each name: a long download would otherwise keep thousands.
    names = {row.blob: row.blob for row in rows}
    return tuple([Part(blob=names[row.blob], offset=row.offset, length=row.length) for row in rows])


def append_parts(connection: apsw.Connection, file: File, parts: Iterable[Part]) -> None:
    """Add parts at the end; a slice that touches the last one lengthens it."""
    last = select_one(connection, SQL["get_last_part"], {"file_id": file.id}, PartRow)
    before = [] if last is None else [last.part()]
    first = 0 if last is None else last.seq
    for seq, part in enumerate(merged([*before, *parts]), start=first):
        if last is not None and part == last.part():
            continue
        values: dict[str, Value] = {
            "file_id": file.id,
            "seq": seq,
            "tenant": file.tenant,
            "blob": part.blob,
            "offset": part.offset,
            "length": part.length,
        }
        write(connection, SQL["put_part"], values)


def set_parts(connection: apsw.Connection, file: File, parts: Iterable[Part]) -> None:
    """Replace all parts of a file."""
    write(connection, SQL["remove_parts"], {"file_id": file.id})
    append_parts(connection, file, parts)


def get_upload(connection: apsw.Connection, upload_id: str) -> UploadRow | None:
    """Return an upload's row."""
    return select_one(connection, SQL["get_upload"], {"id": upload_id}, UploadRow)


class _FragmentedRow(msgspec.Struct, frozen=True, array_like=True):
    id: str
    tenant: str
    bytes: int
    parts: int


def list_fragmented(moment: Moment, *, parts_min: int, limit: int) -> list[Fragmented]:
    """Return visible files of many parts."""
    connection, now = moment
    assert parts_min > 0, parts_min
    assert limit > 0, limit
    values: dict[str, Value] = {"parts_min": parts_min, "limit": limit, "now": now}
    rows = select(connection, SQL["list_fragmented"], values, _FragmentedRow)
    return [
        Fragmented(file_id=row.id, tenant=row.tenant, parts=row.parts, bytes=row.bytes)
        for row in rows
    ]


def swap_parts(
    moment: Moment,
    upload_id: str,
    file_id: str,
    *,
    old: Sequence[Part],
    new: Sequence[Part],
    keep_seconds: float,
) -> bool:
    """Replace the first parts of a file by others of the same bytes."""
    connection, now = moment
    upload = get_upload(connection, upload_id)
    if upload is not None and upload.file_id is not None:
        return upload.file_id == file_id
    row = get_row(connection, file_id)
    if upload is None or upload.state == "abandoned" or row is None:
        return False
    file_rules.check_swap(old, new, upload.blob)
    if not file_rules.is_visible(row.file(), now, deleted=bool(row.deleted)):
        return False
    parts = get_parts(connection, file_id)
    count = len(old)
    if parts[:count] != tuple(old):
        return False
    assert upload.tenant == row.tenant, "the upload of another tenant"
    set_parts(connection, row.file(), merged([*new, *parts[count:]]))
    mark_finished(connection, upload_id, file_id)
    for blob in sorted({part.blob for part in old}):
        _retain_unneeded(connection, blob, row.tenant, now + keep_seconds)
    return True


def _retain_unneeded(connection: apsw.Connection, blob: str, tenant: str, until: float) -> None:
    needed = select_one(
        connection, SQL["is_needed"], {"blob": blob, "terminal": TERMINAL_JSON}, FlagRow
    )
    if needed is not None and not needed.flag:
        values: dict[str, Value] = {"blob": blob, "tenant": tenant, "until": until}
        write(connection, SQL["retain_blob"], values)
