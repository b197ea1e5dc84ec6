"""Polls, offers and claims in the SQLite ledger. Each function runs inside one transaction."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice

import apsw
import msgspec

from tidegate.domain.batch import Batch, Status
from tidegate.domain.claim import Kind, Unit
from tidegate.domain.ledger import batches as batch_rules
from tidegate.domain.ledger.values import ClaimedBatch, ClaimedShard, ClaimedShards, Poll, Want
from tidegate.domain.shard import Shard
from tidegate.domain.share import Offer, in_order
from tidegate.stores import sql
from tidegate.stores.sqlite import batches, members, units
from tidegate.stores.sqlite.rows import Moment, ShardRow, Value, select, select_one

SQL = sql.load("tidegate.stores.sqlite", "claims.sql")
PAGE_BATCHES = 32
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


def claim_planning(
    moment: Moment, owner: str, *, lease_seconds: float, ending_only: bool = False
) -> ClaimedBatch | None:
    """Claim the oldest claimable planning."""
    return _claim_oldest(moment, Kind.PLANNING, owner, lease_seconds, ending_only=ending_only)


def claim_finalizing(moment: Moment, owner: str, *, lease_seconds: float) -> ClaimedBatch | None:
    """Claim the oldest claimable finalizing."""
    return _claim_oldest(moment, Kind.FINALIZING, owner, lease_seconds, ending_only=False)


def _claim_oldest(
    moment: Moment, kind: Kind, owner: str, lease_seconds: float, *, ending_only: bool
) -> ClaimedBatch | None:
    connection, now = moment
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


def is_due(moment: Moment, kind: Kind, *, ending_only: bool) -> bool:
    """Return whether a planning or finalizing could be claimed."""
    values: dict[str, Value] = {"now": moment.now, "ending_only": ending_only}
    return select_one(moment.connection, _OLDEST[kind], values, _OldestRow) is not None


def claim_shards(
    moment: Moment, owner: str, wants: Sequence[Want], *, lease_seconds: float
) -> list[ClaimedShards]:
    """Claim what is still claimable of each want."""
    connection, now = moment
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
            "ending": batch_rules.is_ending(batch, now),
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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Which offers a processor asks for."""

    limit: int
    skip_models: frozenset[str]
    ending_only: bool


class _HeldRow(msgspec.Struct, frozen=True, array_like=True):
    batch_id: str
    tenant: str
    lines: int


class _TenantRow(msgspec.Struct, frozen=True, array_like=True):
    tenant: str | None


class _BatchRow(msgspec.Struct, frozen=True, array_like=True):
    id: str
    tenant: str
    created_at: float
    expires_at: float
    status: str

    def is_ending(self, now: float) -> bool:
        """Return whether no line of it may run any more."""
        return self.status == Status.CANCELLING or self.expires_at <= now


class _ModelRow(msgspec.Struct, frozen=True, array_like=True):
    """Claimable shards of one model: `ready` ones, and those `free` if the batch is ending."""

    model: str
    ready: int
    free: int


def poll(
    moment: Moment,
    owner: str,
    *,
    offers_max: int,
    batch_ids: Sequence[str] = (),
    skip_models: Collection[str] = (),
    ending_only: bool = False,
) -> Poll:
    """Answer a poll."""
    alive = members.list_members(moment)
    wanted = _Wanted(limit=offers_max, skip_models=frozenset(skip_models), ending_only=ending_only)
    return Poll(
        now=moment.now,
        members=len(alive),
        rank=alive.index(owner) if owner in alive else None,
        statuses=batches.get_states(moment, batch_ids).by_id,
        offers=tuple(_OfferSearch(moment, wanted).offers()),
        planning_due=is_due(moment, Kind.PLANNING, ending_only=ending_only),
        finalizing_due=is_due(moment, Kind.FINALIZING, ending_only=ending_only),
    )


class _OfferSearch:
    """Walks open batches in the order of shares, and stops as soon as there are enough offers.

    Lines at work are counted from the claims that are held. The batches of a tenant come from an
    index by age, those without a line at work first.
    """

    def __init__(self, moment: Moment, wanted: _Wanted) -> None:
        connection, now = moment
        self._connection = connection
        self._wanted = wanted
        self._now = now
        self._lines: dict[str, int] = {}
        self._tenant_lines: dict[str, int] = {}
        self._held: dict[str, list[str]] = {}
        for row in select(connection, SQL["held_lines"], {"now": now}, _HeldRow):
            if row.lines:
                self._lines[row.batch_id] = row.lines
                self._tenant_lines[row.tenant] = self._tenant_lines.get(row.tenant, 0) + row.lines
                self._held.setdefault(row.tenant, []).append(row.batch_id)

    def offers(self) -> list[Offer]:
        """Return the offers that are wanted, in order."""
        ending = select(self._connection, SQL["ending_batches"], {"now": self._now}, _BatchRow)
        found = in_order(offer for row in ending for offer in self._of_batch(row))
        if not self._wanted.ending_only:
            found += islice(self._running(), max(0, self._wanted.limit - len(found)))
        return found[: self._wanted.limit]

    def _running(self) -> Iterator[Offer]:
        tenants = sorted(self._tenants(), key=self._share)
        for _, equal in groupby(tenants, key=self._share):
            for row in merge(*(self._batches(tenant) for tenant in equal), key=self._place):
                yield from self._of_batch(row)

    def _share(self, tenant: str) -> int:
        return self._tenant_lines.get(tenant, 0)

    def _place(self, row: _BatchRow) -> tuple[int, float, str]:
        return self._lines.get(row.id, 0), row.created_at, row.id

    def _tenants(self) -> Iterator[str]:
        after = ""
        while True:
            row = select_one(self._connection, SQL["next_tenant"], {"after": after}, _TenantRow)
            if row is None or row.tenant is None:
                return
            yield row.tenant
            after = row.tenant

    def _batches(self, tenant: str) -> Iterator[_BatchRow]:
        """Yield the batches of a tenant that are not ending, by lines at work and age."""
        created_at, batch_id = float("-inf"), ""
        while True:
            values: dict[str, Value] = {
                "tenant": tenant,
                "created_at": created_at,
                "id": batch_id,
                "limit": PAGE_BATCHES,
            }
            page = select(self._connection, SQL["open_batches"], values, _BatchRow)
            for row in page:
                if row.id not in self._lines and not row.is_ending(self._now):
                    yield row
            if len(page) < PAGE_BATCHES:
                break
            created_at, batch_id = page[-1].created_at, page[-1].id
        held = [
            select_one(self._connection, SQL["open_batch"], {"id": batch_id}, _BatchRow)
            for batch_id in self._held.get(tenant, ())
        ]
        going = [row for row in held if row is not None and not row.is_ending(self._now)]
        yield from sorted(going, key=self._place)

    def _of_batch(self, row: _BatchRow) -> Iterator[Offer]:
        values: dict[str, Value] = {"batch_id": row.id, "now": self._now}
        ending = row.is_ending(self._now)
        for found in select(self._connection, SQL["open_models"], values, _ModelRow):
            shards = found.free if ending else found.ready
            if shards and found.model not in self._wanted.skip_models:
                yield Offer(
                    batch_id=row.id,
                    tenant=row.tenant,
                    model=found.model,
                    created_at=row.created_at,
                    expires_at=row.expires_at,
                    shards=shards,
                    claimed_lines=self._lines.get(row.id, 0),
                    tenant_lines=self._tenant_lines.get(row.tenant, 0),
                    ending=ending,
                )
