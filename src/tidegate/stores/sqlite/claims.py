"""Offers and claims in the SQLite ledger. Each function runs inside one transaction."""

from collections.abc import Sequence

import apsw
import msgspec

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Kind, Unit
from tidegate.domain.shard import Shard
from tidegate.domain.share import Offer
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


class _OfferRow(msgspec.Struct, frozen=True, array_like=True):
    """Claimable shards of one model: `ready` ones, and those `free` if the batch is ending."""

    batch_id: str
    tenant: str
    model: str
    created_at: float
    expires_at: float
    ending: int
    ready: int
    free: int
    claimed_lines: int

    @property
    def shards(self) -> int:
        """Count what can be claimed now."""
        return self.free if self.ending else self.ready

    def offer(self, claimed_lines: int, tenant_lines: int) -> Offer:
        """Return the row as an offer, with the lines at work of its batch and of its tenant."""
        return Offer(
            batch_id=self.batch_id,
            tenant=self.tenant,
            model=self.model,
            created_at=self.created_at,
            expires_at=self.expires_at,
            shards=self.shards,
            claimed_lines=claimed_lines,
            tenant_lines=tenant_lines,
            ending=bool(self.ending),
        )


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


def list_offers(connection: apsw.Connection, now: float) -> list[Offer]:
    """Return what shards could be claimed; see `Store.list_offers`."""
    rows = select(connection, SQL["list_offers"], {"now": now}, _OfferRow)
    rows.sort(key=_by_batch)
    by_batch: dict[str, int] = {}
    by_tenant: dict[str, int] = {}
    for row in rows:  # Also those with nothing to claim: their lines count for the tenant.
        by_batch[row.batch_id] = by_batch.get(row.batch_id, 0) + row.claimed_lines
        by_tenant[row.tenant] = by_tenant.get(row.tenant, 0) + row.claimed_lines
    return [row.offer(by_batch[row.batch_id], by_tenant[row.tenant]) for row in rows if row.shards]


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


def _by_batch(row: _OfferRow) -> tuple[str, str]:
    return row.batch_id, row.model
