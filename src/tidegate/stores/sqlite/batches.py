"""Batches in the SQLite ledger, as users see and ask for them. One transaction each."""

import math
from collections.abc import Sequence

import apsw
import msgspec

from tidegate.domain.batch import Batch, Status, ask_cancel
from tidegate.domain.claim import Kind, Unit
from tidegate.domain.file import Part
from tidegate.domain.ledger import batches as batch_rules, files as file_rules
from tidegate.domain.ledger.values import Page, States
from tidegate.stores import sql
from tidegate.stores.sqlite import files, units
from tidegate.stores.sqlite.rows import (
    TERMINAL_JSON,
    BatchRow,
    Moment,
    Value,
    batch_values,
    progress_values,
    select,
    select_one,
    write,
)

SQL = sql.load("tidegate.stores.sqlite", "batches.sql")


class _StateRow(msgspec.Struct, frozen=True, array_like=True):
    id: str
    status: str


def create_batch(moment: Moment, batch: Batch) -> Batch:
    """Record a new batch, or return the one that answers it."""
    connection, now = moment
    batch_rules.check_new(batch)
    known = _by_key(connection, batch) or get_row(connection, batch.id)
    if known is not None:
        return known.batch()
    file = files.get_row(connection, batch.input_file_id)
    holds_input = (
        file is not None
        and file.tenant == batch.tenant
        and file_rules.is_visible(file.file(), now, deleted=bool(file.deleted))
    )
    write(connection, SQL["insert_batch"], {**batch_values(batch), "holds_input": holds_input})
    units.open_unit(connection, batch, Unit(batch_id=batch.id, kind=Kind.PLANNING))
    return batch


def get_row(connection: apsw.Connection, batch_id: str) -> BatchRow | None:
    """Return a batch's row, of any tenant."""
    return select_one(connection, SQL["get_batch"], {"id": batch_id}, BatchRow)


def get_batch(
    connection: apsw.Connection, tenant: str, batch_id: str, *, param: str | None = None
) -> Batch:
    """Return a batch of the tenant, or raise `NotFound`."""
    row = get_row(connection, batch_id)
    if row is None or row.tenant != tenant:
        raise batch_rules.no_batch(batch_id, param=param)
    return row.batch()


def list_batches(
    connection: apsw.Connection, tenant: str, *, after: str | None, limit: int
) -> Page[Batch]:
    """Return a page of batches."""
    assert limit > 0, limit
    values: dict[str, Value] = {
        "tenant": tenant,
        "created_at": math.inf,
        "id": "",
        "limit": limit + 1,  # One more shows whether anything follows.
    }
    if after is not None:
        mark = get_batch(connection, tenant, after, param="after")
        values |= {"created_at": mark.created_at, "id": mark.id}
    rows = select(connection, SQL["list_batches"], values, BatchRow)
    return Page(items=tuple(row.batch() for row in rows[:limit]), has_more=len(rows) > limit)


def cancel_batch(connection: apsw.Connection, tenant: str, batch_id: str, *, at: float) -> Batch:
    """Ask for the end of a batch."""
    before = get_batch(connection, tenant, batch_id)
    batch = ask_cancel(before, at)
    if batch is not before:
        save_batch(connection, batch)
    return batch


def get_states(moment: Moment, batch_ids: Sequence[str]) -> States:
    """Return the status of each of these batches that exists, in the order asked for."""
    values = {"ids": msgspec.json.encode(list(batch_ids)).decode()}
    rows = select(moment.connection, SQL["get_states"], values, _StateRow)
    found = {row.id: Status(row.status) for row in rows}
    by_id = {key: found[key] for key in batch_ids if key in found}
    return States(now=moment.now, by_id=by_id)


def note_waiting(connection: apsw.Connection, batch_id: str, reason: str | None) -> None:
    """Record why a live batch makes no progress."""
    values = {"id": batch_id, "reason": reason, "terminal": TERMINAL_JSON}
    write(connection, SQL["note_waiting"], values)


def get_input(connection: apsw.Connection, batch_id: str) -> tuple[Part, ...] | None:
    """Return the parts of the input that the batch holds."""
    row = get_row(connection, batch_id)
    if row is None or not row.holds_input:
        return None
    file = files.get_row(connection, row.input_file_id)
    if file is None or file.released:
        return None
    return files.get_parts(connection, row.input_file_id)


def save_batch(connection: apsw.Connection, batch: Batch) -> None:
    """Write what changes while a batch runs: status, times, counts, usage, lengths of files."""
    changed = write(connection, SQL["save_batch"], progress_values(batch))
    assert changed == 1, batch.id


def save_plan(connection: apsw.Connection, batch: Batch) -> None:
    """Write what a batch learns from its plan, once."""
    write(connection, SQL["save_plan"], batch_values(batch))


def save_problems(connection: apsw.Connection, batch: Batch) -> None:
    """Write why a batch could not be planned, once."""
    write(connection, SQL["save_problems"], batch_values(batch))


def _by_key(connection: apsw.Connection, batch: Batch) -> BatchRow | None:
    if batch.idempotency_key is None:
        return None
    values = {"tenant": batch.tenant, "idempotency_key": batch.idempotency_key}
    return select_one(connection, SQL["get_batch_by_key"], values, BatchRow)
