"""Files of many parts in the SQLite ledger (PROTOCOL 12). Each function is one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

import apsw
import msgspec

from tidegate.domain.batch import TERMINAL
from tidegate.domain.file import Part, merged
from tidegate.stores import fences, ledger, sql
from tidegate.stores.sqlite import files
from tidegate.stores.sqlite.rows import Value, select, select_one, write
from tidegate.stores.upkeep import Fragmented

SQL = sql.load("tidegate.stores.sqlite", "compaction.sql")
_TERMINAL = msgspec.json.encode(sorted(TERMINAL)).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Swap:
    """The arguments of `Upkeep.swap_parts`."""

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
    """Return visible files of many parts; see `Upkeep.list_fragmented`."""
    assert parts_min > 0, parts_min
    assert limit > 0, limit
    values: dict[str, Value] = {"parts_min": parts_min, "limit": limit, "now": now}
    rows = select(connection, SQL["list_fragmented"], values, _FragmentedRow)
    return [
        Fragmented(file_id=row.id, tenant=row.tenant, parts=row.parts, bytes=row.bytes)
        for row in rows
    ]


def swap_parts(connection: apsw.Connection, swap: Swap, now: float) -> bool:
    """Replace the first parts of a file by others of the same bytes; see `Upkeep.swap_parts`."""
    upload = files.get_upload(connection, swap.upload_id)
    if upload is not None and upload.file_id is not None:
        return upload.file_id == swap.file_id
    row = files.get_row(connection, swap.file_id)
    if upload is None or upload.state == "abandoned" or row is None:
        return False
    fences.check_swap(swap.old, swap.new, upload.blob)
    if not ledger.is_visible(row.file(), now, deleted=bool(row.deleted)):
        return False
    parts = files.get_parts(connection, swap.file_id)
    count = len(swap.old)
    if parts[:count] != tuple(swap.old):
        return False
    assert upload.tenant == row.tenant, "the upload of another tenant"
    files.set_parts(connection, row.file(), merged([*swap.new, *parts[count:]]))
    files.mark_finished(connection, swap.upload_id, swap.file_id)
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
