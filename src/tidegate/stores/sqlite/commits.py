"""What the holder of a claim writes in the SQLite ledger. Each function is one transaction."""

from collections.abc import Sequence

import apsw
import msgspec

from tidegate.domain.batch import Batch, Problem
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.ledger import (
    batches as batch_rules,
    claims as claim_rules,
    commits as commit_rules,
    files as file_rules,
)
from tidegate.domain.ledger.values import Commit, Plan
from tidegate.domain.shard import Shard, ShardPlan, Verdict, count_done
from tidegate.stores import sql
from tidegate.stores.sqlite import batches, claims, files, units
from tidegate.stores.sqlite.rows import BatchRow, Value, select_one, unit_values, write

SQL = sql.load("tidegate.stores.sqlite", "commits.sql")


class WriterRow(msgspec.Struct, frozen=True, array_like=True):
    """For which batch and processor a writer writes, and whether it may."""

    batch_id: str
    owner: str
    fenced: int


def plan_batch(connection: apsw.Connection, claim: Claim, plan: Plan, *, at: float) -> Batch:
    """Record a plan."""
    before = _held(connection, claim, Kind.PLANNING)
    hold = units.get_hold(connection, claim.unit)
    assert hold is not None, claim.unit
    batch = batch_rules.planned_batch(before, hold, claim, plan, at)
    if batch is not before:
        for cut in plan.shards:
            _open_shard(connection, batch, cut)
        _end(connection, claim.unit)
        batches.save_batch(connection, batch)
        batches.save_plan(connection, batch)
        set_open_shards(connection, batch.id, len(plan.shards))
    return batch


def end_unplanned(
    connection: apsw.Connection, claim: Claim, *, problems: Sequence[Problem], at: float
) -> Batch:
    """End a batch without a plan."""
    before = _held(connection, claim, Kind.PLANNING)
    hold = units.get_hold(connection, claim.unit)
    assert hold is not None, claim.unit
    batch = batch_rules.ended_without_plan(before, hold, claim, problems, at)
    if batch is not before:
        _end(connection, claim.unit)
        batches.save_batch(connection, batch)
        batches.save_problems(connection, batch)
    return batch


def commit(connection: apsw.Connection, commit: Commit) -> list[Verdict]:
    """Record results."""
    row = batches.get_row(connection, commit.batch_id)
    if row is None:
        return [Verdict.STALE] * len(commit.shards)
    shards = {
        part.number: shard
        for part in commit.shards
        if (shard := claims.get_shard(connection, row.id, part.number)) is not None
    }
    outcome = commit_rules.evaluate_commit(
        commit, shards, may_write=may_write(connection, commit.writer, row.id)
    )
    if outcome.shards:
        _record(connection, row, outcome, commit.at)
    return list(outcome.verdicts)


def finish_batch(connection: apsw.Connection, claim: Claim, *, at: float) -> Batch:
    """Make a batch terminal."""
    before = _held(connection, claim, Kind.FINALIZING)
    batch = batch_rules.finished_batch(before, units.get_hold(connection, claim.unit), claim, at)
    if batch is not before:
        _end(connection, claim.unit)
        batches.save_batch(connection, batch)
        for file_id in (batch.output_file_id, batch.error_file_id):
            file = files.get_row(connection, file_id)
            if file is not None:
                files.put_file(connection, file_rules.finalized_file(file.file(), batch, at))
    return batch


def save_shard(connection: apsw.Connection, shard: Shard) -> None:
    """Write which lines of a shard are done, and by which commit."""
    values: dict[str, Value] = {
        "batch_id": shard.batch_id,
        "number": shard.plan.number,
        "done": shard.done,
        "sequence": shard.sequence,
        "last_segment": shard.last_segment,
    }
    write(connection, SQL["save_shard"], values)


def set_open_shards(connection: apsw.Connection, batch_id: str, open_shards: int) -> None:
    """Write how many shards of a batch have not ended."""
    write(connection, SQL["set_open_shards"], {"id": batch_id, "open_shards": open_shards})


def begin_writer(
    connection: apsw.Connection,
    writer: str,
    *,
    batch_id: str,
    owner: str,
    at: float,
    fenced: bool = False,
) -> None:
    """Record a writer, once, if its batch exists."""
    values: dict[str, Value] = {
        "id": writer,
        "batch_id": batch_id,
        "owner": owner,
        "at": at,
        "fenced": fenced,
    }
    write(connection, SQL["begin_writer"], values)


def get_writer(connection: apsw.Connection, writer: str) -> WriterRow | None:
    """Return a writer's row; None if it was never begun, or was removed with its batch."""
    return select_one(connection, SQL["get_writer"], {"id": writer}, WriterRow)


def may_write(connection: apsw.Connection, writer: str, batch_id: str) -> bool:
    """Return whether results of this batch under this name may be committed."""
    row = get_writer(connection, writer)
    return row is not None and row.batch_id == batch_id and not row.fenced


def fence_writer(connection: apsw.Connection, writer: str) -> None:
    """Fence a writer: it commits nothing more."""
    changed = write(connection, SQL["fence_writer"], {"id": writer})
    assert changed == 1, writer


def _held(connection: apsw.Connection, claim: Claim, kind: Kind) -> Batch:
    assert claim.unit.kind is kind, claim.unit
    row = batches.get_row(connection, claim.unit.batch_id)
    if row is None:
        raise claim_rules.claim_lost(claim)
    return row.batch()


def _open_shard(connection: apsw.Connection, batch: Batch, cut: ShardPlan) -> None:
    values: dict[str, Value] = {
        "batch_id": batch.id,
        "number": cut.number,
        "tenant": batch.tenant,
        "model": cut.model,
        "offset": cut.offset,
        "length": cut.length,
        "lines": cut.lines,
        "done": batch_rules.new_shard(batch.id, cut).done,
    }
    write(connection, SQL["insert_shard"], values)
    unit = Unit(batch_id=batch.id, kind=Kind.SHARD, number=cut.number)
    units.open_unit(connection, batch, unit, model=cut.model, undone=cut.lines)


def _end(connection: apsw.Connection, unit: Unit) -> None:
    write(connection, SQL["end_unit"], unit_values(unit))


def _record(
    connection: apsw.Connection, row: BatchRow, outcome: commit_rules.CommitOutcome, at: float
) -> None:
    before = row.batch()
    for shard in outcome.shards:
        save_shard(connection, shard)
        values: dict[str, Value] = {
            "batch_id": shard.batch_id,
            "number": shard.plan.number,
            "undone": shard.plan.lines - count_done(shard.done),
            "ended": shard.ended,
        }
        write(connection, SQL["save_shard_unit"], values)
    for growth in commit_rules.file_extensions(before, outcome):
        file_id, _, parts = growth
        known = files.get_row(connection, file_id)
        file = file_rules.extended_file(None if known is None else known.file(), before, growth, at)
        files.put_file(connection, file)
        files.append_parts(connection, file, parts)
    open_shards = row.open_shards - outcome.ended
    batch = commit_rules.batch_after_commit(before, outcome, open_shards=open_shards, at=at)
    batches.save_batch(connection, batch)
    if outcome.ended:
        set_open_shards(connection, batch.id, open_shards)
    if not open_shards:
        units.open_unit(connection, batch, Unit(batch_id=batch.id, kind=Kind.FINALIZING))
