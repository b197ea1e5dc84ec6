"""Uploads and files in the SQLite ledger. Each function runs inside one transaction."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import apsw
import msgspec

from tidegate.domain.batch import TERMINAL
from tidegate.domain.file import File, Part, Purpose, merged
from tidegate.domain.ledger import files as file_rules
from tidegate.domain.ledger.values import Fragmented, Page
from tidegate.stores import sql
from tidegate.stores.sqlite.rows import (
    FileRow,
    PartRow,
    Value,
    file_values,
    select,
    select_one,
    write,
)

SQL = sql.load("tidegate.stores.sqlite", "files.sql")
_TERMINAL = msgspec.json.encode(sorted(TERMINAL)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """Which files to list, in which order: the arguments of `Store.list_files`."""

    after: str | None
    limit: int
    ascending: bool
    purpose: Purpose | None


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
    """Turn a pending upload into a file; see `Store.finish_upload`."""
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
    """Fence an upload; see `Store.abandon_upload`."""
    write(connection, SQL["abandon_upload"], {"id": upload_id})
    upload = get_upload(connection, upload_id)
    return upload is None or upload.state == "abandoned"


def get_row(connection: apsw.Connection, file_id: str | None) -> FileRow | None:
    """Return a file's row, of any tenant, also a deleted one's."""
    return select_one(connection, SQL["get_file"], {"id": file_id}, FileRow)


def get_visible(connection: apsw.Connection, tenant: str, file_id: str, now: float) -> File:
    """Return a file that the tenant can see, or raise `NotFound`."""
    row = get_row(connection, file_id)
    if (
        row is None
        or row.tenant != tenant
        or not file_rules.is_visible(row.file(), now, deleted=bool(row.deleted))
    ):
        raise file_rules.no_file(file_id)
    return row.file()


def list_files(
    connection: apsw.Connection, tenant: str, listing: Listing, now: float
) -> Page[File]:
    """Return a page of visible files; see `Store.list_files`."""
    assert listing.limit > 0, listing
    values: dict[str, Value] = {
        "tenant": tenant,
        "created_at": -math.inf if listing.ascending else math.inf,
        "id": "",
        "now": now,
        "purpose": listing.purpose,
        "limit": listing.limit + 1,  # One more shows whether anything follows.
    }
    if listing.after is not None:
        mark = get_row(connection, listing.after)
        if mark is None or mark.tenant != tenant:
            raise file_rules.no_file(listing.after, param="after")
        values |= {"created_at": mark.created_at, "id": mark.id}
    statement = SQL["list_files_up"] if listing.ascending else SQL["list_files_down"]
    rows = select(connection, statement, values, FileRow)
    items = tuple(row.file() for row in rows[: listing.limit])
    return Page(items=items, has_more=len(rows) > listing.limit)


def delete_file(connection: apsw.Connection, tenant: str, file_id: str, now: float) -> None:
    """Hide a file; see `Store.delete_file`."""
    file_rules.check_deletable(get_visible(connection, tenant, file_id, now))
    write(connection, SQL["delete_file"], {"id": file_id})


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """The arguments of `Store.swap_parts`."""

    upload_id: str
    file_id: str
    old: Sequence[Part]
    new: Sequence[Part]
    keep_seconds: float


class _FragmentedRow(msgspec.Struct, frozen=True, array_like=True):
    id: str
    tenant: str
    bytes: int
    parts: int


class _FlagRow(msgspec.Struct, frozen=True, array_like=True):
    flag: int


def list_fragmented(
    connection: apsw.Connection, *, parts_min: int, limit: int, now: float
) -> list[Fragmented]:
    """Return visible files of many parts; see `Store.list_fragmented`."""
    assert parts_min > 0, parts_min
    assert limit > 0, limit
    values: dict[str, Value] = {"parts_min": parts_min, "limit": limit, "now": now}
    rows = select(connection, SQL["list_fragmented"], values, _FragmentedRow)
    return [
        Fragmented(file_id=row.id, tenant=row.tenant, parts=row.parts, bytes=row.bytes)
        for row in rows
    ]


def swap_parts(connection: apsw.Connection, swap: Swap, now: float) -> bool:
    """Replace the first parts of a file by others of the same bytes; see `Store.swap_parts`."""
    upload = get_upload(connection, swap.upload_id)
    if upload is not None and upload.file_id is not None:
        return upload.file_id == swap.file_id
    row = get_row(connection, swap.file_id)
    if upload is None or upload.state == "abandoned" or row is None:
        return False
    file_rules.check_swap(swap.old, swap.new, upload.blob)
    if not file_rules.is_visible(row.file(), now, deleted=bool(row.deleted)):
        return False
    parts = get_parts(connection, swap.file_id)
    count = len(swap.old)
    if parts[:count] != tuple(swap.old):
        return False
    assert upload.tenant == row.tenant, "the upload of another tenant"
    set_parts(connection, row.file(), merged([*swap.new, *parts[count:]]))
    mark_finished(connection, swap.upload_id, swap.file_id)
    for blob in sorted({part.blob for part in swap.old}):
        _retain_unneeded(connection, blob, row.tenant, now + swap.keep_seconds)
    return True


def _retain_unneeded(connection: apsw.Connection, blob: str, tenant: str, until: float) -> None:
    needed = select_one(
        connection, SQL["is_needed"], {"blob": blob, "terminal": _TERMINAL}, _FlagRow
    )
    if needed is not None and not needed.flag:
        values: dict[str, Value] = {"blob": blob, "tenant": tenant, "until": until}
        write(connection, SQL["retain_blob"], values)
