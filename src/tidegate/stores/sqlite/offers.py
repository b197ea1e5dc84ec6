"""What a processor asks the SQLite ledger when it looks for work. One read transaction."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from heapq import merge
from itertools import groupby, islice

import apsw
import msgspec

from tidegate.domain.batch import Status
from tidegate.domain.claim import Kind
from tidegate.domain.share import Offer, in_order
from tidegate.stores import sql
from tidegate.stores.base import Poll
from tidegate.stores.sqlite import batches, claims, living
from tidegate.stores.sqlite.rows import Value, select, select_one

SQL = sql.load("tidegate.stores.sqlite", "offers.sql")
PAGE_BATCHES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which offers a processor asks for; see `Store.poll`."""

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
    connection: apsw.Connection,
    owner: str,
    batch_ids: Sequence[str],
    wanted: Wanted,
    *,
    now: float,
) -> Poll:
    """Answer a processor; see `Store.poll`."""
    members = living.get_living(connection, now)
    return Poll(
        now=now,
        members=len(members),
        rank=members.index(owner) if owner in members else None,
        statuses=batches.get_states(connection, batch_ids, now=now).by_id,
        offers=tuple(_Looking(connection, wanted, now).offers()),
        planning_due=claims.is_due(
            connection, Kind.PLANNING, now=now, ending_only=wanted.ending_only
        ),
        finalizing_due=claims.is_due(
            connection, Kind.FINALIZING, now=now, ending_only=wanted.ending_only
        ),
    )


class _Looking:
    """Walks open batches in the order of shares, and stops as soon as there are enough offers.

    Lines at work are counted from the claims that are held. The batches of a tenant come from an
    index by age, those without a line at work first.
    """

    def __init__(self, connection: apsw.Connection, wanted: Wanted, now: float) -> None:
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
