"""Offers and claims in the SQLite ledger. Each function runs inside one transaction."""

from collections.abc import Sequence

import apsw
import msgspec

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Kind, Unit
from tidegate.domain.shard import Shard
from tidegate.stores import ledger, sql
from tidegate.stores.base import ClaimedBatch, ClaimedShard, ClaimedShards, Want
from tidegate.stores.sqlite import batches, units
from tidegate.stores.sqlite.rows import ShardRow, Value, select, select_one

SQL = sql.load("tidegate.stores.sqlite", "claims.sql")
_OLDEST = {Kind.PLANNING: SQL["oldest_planning"], Kind.FINALIZING: SQL["oldest_finalizing"]}


class _OldestRow(msgspec.Struct, frozen=True, array_like=True):
    batch_id: str


class _NumberRow(msgspec.Struct, frozen=True, array_like=True):
    number: int


def get_shard(connection: apsw.Connection, batch_id: str, number: int) -> Shard | None:
    """Return a shard with the epoch of its latest claim."""
    values: dict[str, Value] = {"batch_id": batch_id, "number": number}
    row = select_one(connection, SQL["get_shard"], values, ShardRow)
    return None if row is None else row.shard()


def claim_oldest(
    connection: apsw.Connection,
    kind: Kind,
    owner: str,
    *,
    now: float,
    lease_seconds: float,
    ending_only: bool,
) -> ClaimedBatch | None:
    """Claim the planning or finalizing of the oldest batch where it is claimable."""
    values: dict[str, Value] = {"now": now, "ending_only": ending_only}
    oldest = select_one(connection, _OLDEST[kind], values, _OldestRow)
    if oldest is None:
        return None
    row = batches.get_row(connection, oldest.batch_id)
    assert row is not None, oldest
    unit = Unit(batch_id=row.id, kind=kind)
    claim = units.take(connection, unit, owner, now + lease_seconds)
    hold = units.get_hold(connection, unit)
    assert hold is not None, unit
    return ClaimedBatch(claim=claim, batch=row.batch(), crashes=hold.crashes)


def is_due(connection: apsw.Connection, kind: Kind, *, now: float, ending_only: bool) -> bool:
    """Return whether a planning or finalizing could be claimed."""
    values: dict[str, Value] = {"now": now, "ending_only": ending_only}
    return select_one(connection, _OLDEST[kind], values, _OldestRow) is not None


def claim_shards(
    connection: apsw.Connection,
    owner: str,
    wants: Sequence[Want],
    *,
    now: float,
    lease_seconds: float,
) -> list[ClaimedShards]:
    """Claim what is still claimable of each wish; see `Store.claim_shards`."""
    found: dict[str, Batch] = {}
    claimed: dict[str, list[ClaimedShard]] = {}
    for want in wants:
        row = batches.get_row(connection, want.batch_id)
        if row is None:
            continue
        batch = found[want.batch_id] = row.batch()
        values: dict[str, Value] = {
            "batch_id": batch.id,
            "model": want.model,
            "now": now,
            "ending": ledger.is_ending(batch, now),
            "limit": want.limit,
        }
        for row_number in select(connection, SQL["claimable_shards"], values, _NumberRow):
            unit = Unit(batch_id=batch.id, kind=Kind.SHARD, number=row_number.number)
            claim = units.take(connection, unit, owner, now + lease_seconds)
            shard = get_shard(connection, batch.id, unit.number)
            assert shard is not None, unit
            claimed.setdefault(batch.id, []).append(ClaimedShard(claim=claim, shard=shard))
    return [
        ClaimedShards(batch=found[batch_id], shards=tuple(shards))
        for batch_id, shards in claimed.items()
    ]
