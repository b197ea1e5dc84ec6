"""References to blobs, and repair, in the SQLite ledger (PROTOCOL 19)."""

from collections.abc import Mapping, Sequence

import apsw
import msgspec

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Kind, Unit
from tidegate.domain.file import Part
from tidegate.domain.ledger import repair as repair_rules
from tidegate.domain.ledger.values import Reference, Repair, ShardRepair
from tidegate.domain.shard import Shard, count_done
from tidegate.stores import sql
from tidegate.stores.sqlite import batches, claims, commits, files, units
from tidegate.stores.sqlite.rows import (
    TERMINAL_JSON,
    BatchRow,
    ShardRow,
    Value,
    select,
    unit_values,
    write,
)

SQL = sql.load("tidegate.stores.sqlite", "repair.sql")


class _ReferenceRow(msgspec.Struct, frozen=True, array_like=True):
    blob: str
    bytes_needed: int


def list_references(connection: apsw.Connection, *, after: str, limit: int) -> list[Reference]:
    """Return the blobs that rows need."""
    assert limit > 0, limit
    values: dict[str, Value] = {"after": after, "limit": limit, "terminal": TERMINAL_JSON}
    rows = select(connection, SQL["list_references"], values, _ReferenceRow)
    return [Reference(blob=row.blob, bytes_needed=row.bytes_needed) for row in rows]


def list_batches_of(connection: apsw.Connection, blob: str) -> list[Batch]:
    """Return the batches that need a blob."""
    values: dict[str, Value] = {"blob": blob, "terminal": TERMINAL_JSON}
    return [row.batch() for row in select(connection, SQL["list_batches_of"], values, BatchRow)]


def get_shards(connection: apsw.Connection, batch_id: str) -> list[Shard]:
    """Return the shards of a batch by number."""
    rows = select(connection, SQL["get_shards"], {"batch_id": batch_id}, ShardRow)
    return [row.shard() for row in rows]


def repair(connection: apsw.Connection, repair: Repair) -> bool:
    """Make lines whose results are gone run again."""
    row = batches.get_row(connection, repair.batch_id)
    if row is None or not row.open_shards:
        return False
    shards = {
        one.number: shard
        for one in repair.shards
        if (shard := claims.get_shard(connection, row.id, one.number)) is not None
    }
    parts: Mapping[str, Sequence[Part]] = {
        one.file_id: files.get_parts(connection, one.file_id) for one in repair.files
    }
    if repair_rules.is_done_already(repair, shards, parts):
        return True
    if not repair_rules.is_expected(repair, shards, parts):
        return False
    _repair(connection, row, repair, shards)
    return True


def _repair(
    connection: apsw.Connection, row: BatchRow, request: Repair, shards: Mapping[int, Shard]
) -> None:
    repair_rules.check_lost_lines(request, list(shards.values()))
    for one in request.shards:
        _repair_shard(connection, shards[one.number], one)
    for file_repair in request.files:
        known = files.get_row(connection, file_repair.file_id)
        assert known is not None, file_repair.file_id
        file = repair_rules.repaired_file(known.file(), file_repair)
        files.put_file(connection, file)
        files.set_parts(connection, file, file_repair.new)
    for name in repair_rules.writers_of_lost_blobs(request):
        if commits.get_writer(connection, name) is not None:
            commits.fence_writer(connection, name)
    batches.save_batch(connection, repair_rules.repaired_batch(row.batch(), request))
    reopened = sum(shard.ended for shard in shards.values())
    commits.set_open_shards(connection, row.id, row.open_shards + reopened)


def _repair_shard(connection: apsw.Connection, before: Shard, request: ShardRepair) -> None:
    shard = repair_rules.repaired_shard(before, request)
    unit = Unit(batch_id=shard.batch_id, kind=Kind.SHARD, number=shard.plan.number)
    hold = units.get_hold(connection, unit)
    assert hold is not None, unit
    commits.save_shard(connection, shard)
    free = repair_rules.reopened(hold)
    values: dict[str, Value] = {
        **unit_values(unit),
        "owner": free.owner,
        "epoch": free.epoch,
        "undone": shard.plan.lines - count_done(shard.done),
    }
    write(connection, SQL["reopen_unit"], values)
