"""Blobs that no row of the SQLite ledger needs, and fences for writers that might commit them.

Each function runs inside one transaction, so that nothing is committed between the question
whether a row points to a blob and the fence that keeps rows from ever doing so (PROTOCOL 18).
"""

from collections.abc import Sequence

import apsw
import msgspec

from tidegate.domain.blob_names import PlanBlob, ResultBlob, UploadBlob, parse
from tidegate.domain.claim import Kind, Unit
from tidegate.domain.ledger import claims as claim_rules, garbage as garbage_rules
from tidegate.domain.ledger.claims import Hold
from tidegate.domain.ledger.garbage import Fate
from tidegate.stores import sql
from tidegate.stores.sqlite import batches, commits, units
from tidegate.stores.sqlite.rows import (
    TERMINAL_JSON,
    BatchRow,
    CountRow,
    HoldRow,
    Moment,
    NameRow,
    Value,
    select,
    select_one,
    unit_values,
    write,
)

SQL = sql.load("tidegate.stores.sqlite", "garbage.sql")


class _ClaimRow(HoldRow, frozen=True, array_like=True):
    kind: str
    number: int


def list_unreferenced(moment: Moment, names: Sequence[str]) -> list[str]:
    """Return those blobs that no row needs."""
    connection, now = moment
    values: dict[str, Value] = {
        "names": msgspec.json.encode(list(dict.fromkeys(names))).decode(),
        "terminal": TERMINAL_JSON,
        "now": now,
    }
    return [row.name for row in select(connection, SQL["list_unreferenced"], values, NameRow)]


def fence_and_list_deletable(
    moment: Moment, names: Sequence[str], *, idle_seconds: float
) -> list[str]:
    """Fence the writers of unreferenced blobs."""
    return [
        name for name in list_unreferenced(moment, names) if _may_go(moment, name, idle_seconds)
    ]


def _may_go(moment: Moment, name: str, idle_seconds: float) -> bool:
    connection, now = moment
    match parse(name):
        case None:
            return False
        case UploadBlob(upload_id=upload_id):
            values: dict[str, Value] = {
                "id": upload_id,
                "blob": name,
                "now": now,
                "idle_since": now - idle_seconds,
            }
            return _upload_goes(connection, values)
        case PlanBlob(batch_id=batch_id, epoch=epoch):
            return _plan_goes(connection, batch_id, epoch, now)
        case ResultBlob(batch_id=batch_id, writer=writer):
            return _results_go(connection, batch_id, writer, now)


def _upload_goes(connection: apsw.Connection, values: dict[str, Value]) -> bool:
    # An upload that was never begun must not begin now, because its bytes will be deleted.
    write(connection, SQL["bar_upload"], values)
    busy = select_one(connection, SQL["count_busy_uploads"], values, CountRow)
    if busy is None or busy.count:
        return False
    write(connection, SQL["abandon_uploads"], values)
    return True


def _plan_goes(connection: apsw.Connection, batch_id: str, epoch: int, now: float) -> bool:
    unit = Unit(batch_id=batch_id, kind=Kind.PLANNING)
    hold = units.get_hold(connection, unit)
    fate = garbage_rules.plan_fate(hold, epoch, now)
    if fate is Fate.FENCE:
        assert hold is not None, unit
        fence_unit(connection, unit, hold)
    return fate is not Fate.STAYS


def _results_go(connection: apsw.Connection, batch_id: str, name: str, now: float) -> bool:
    writer = commits.get_writer(connection, name)
    if writer is not None and writer.batch_id != batch_id:
        return False  # Not one of our names: a writer writes for one batch.
    row = batches.get_row(connection, batch_id)
    if row is None or _is_run(row) or (writer is not None and writer.fenced):
        return True
    # Results that were written before there were writers carry the name of their owner.
    owner = name if writer is None else writer.owner
    found = _open_claims(connection, batch_id, owner)
    if garbage_rules.writer_fate(found.values(), now) is Fate.STAYS:
        return False
    for unit, hold in found.items():
        fence_unit(connection, unit, hold)
    if writer is None:
        commits.begin_writer(connection, name, batch_id=batch_id, owner=owner, at=now, fenced=True)
    else:
        commits.fence_writer(connection, name)
    return True


def fence_unit(connection: apsw.Connection, unit: Unit, hold: Hold) -> None:
    """End the right of the last holder of an open unit to write it."""
    fenced = claim_rules.fenced(hold)
    values: dict[str, Value] = {
        **unit_values(unit),
        "epoch": fenced.epoch,
        "crashes": fenced.crashes,
    }
    changed = write(connection, SQL["fence_unit"], values)
    assert changed == 1, unit


def _is_run(row: BatchRow) -> bool:
    batch = row.batch()
    return batch.is_terminal or (batch.is_planned and not row.open_shards)


def _open_claims(connection: apsw.Connection, batch_id: str, owner: str) -> dict[Unit, Hold]:
    values: dict[str, Value] = {"batch_id": batch_id, "owner": owner}
    rows = select(connection, SQL["list_open_claims"], values, _ClaimRow)
    return {
        Unit(batch_id=batch_id, kind=Kind(row.kind), number=row.number): row.hold() for row in rows
    }
