"""Rows of the memory ledger: uploads, writers, files with parts, jobs (a batch and its units)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.file import File, Part, merged
from tidegate.domain.ledger import batches as batch_rules, claims as claim_rules
from tidegate.domain.ledger.claims import Hold
from tidegate.domain.ledger.values import Page
from tidegate.domain.shard import Shard, count_done
from tidegate.domain.share import Offer
from tidegate.runtime.clock import Clock
from tidegate.stores.base import Store

Item = TypeVar("Item", File, Batch)


@dataclass(slots=True)
class Upload:
    """A blob that is being written. A finished one names its file."""

    tenant: str
    blob: str
    created_at: float
    file_id: str | None = None
    abandoned: bool = False

    @property
    def is_pending(self) -> bool:
        """Return whether it may still become a file."""
        return self.file_id is None and not self.abandoned


@dataclass(slots=True)
class Writer:
    """A name under which results of a batch are written; a fenced one commits nothing more."""

    batch_id: str
    owner: str
    fenced: bool = False


@dataclass(slots=True)
class Entry:
    """A file with its parts. A deleted one stays: cursors and running batches refer to it.

    A released one has no parts any more.
    """

    file: File
    parts: list[Part]
    deleted: bool = False
    released: bool = False

    def release(self) -> None:
        """Leave a row that marks the file's place. It stays hidden if the clock is set back."""
        self.parts = []
        self.deleted = self.released = True

    def append(self, parts: Iterable[Part]) -> None:
        """Add parts at the end; a slice that touches the last one lengthens it."""
        for part in parts:
            self.parts[-1:] = merged([*self.parts[-1:], part])


@dataclass(slots=True)
class Job:
    """A batch with its units. `open` holds the numbers of shards that have not ended."""

    batch: Batch
    holds_input: bool
    planning: Hold = field(default_factory=Hold)
    finalizing: Hold | None = None
    shards: dict[int, Shard] = field(default_factory=dict)
    holds: dict[int, Hold] = field(default_factory=dict)
    open: set[int] = field(default_factory=set)

    def get(self, unit: Unit) -> Hold | None:
        """Return the hold on a unit; None if no such unit exists."""
        match unit.kind:
            case Kind.PLANNING:
                return self.planning
            case Kind.FINALIZING:
                return self.finalizing
            case Kind.SHARD:
                return self.holds.get(unit.number)

    def hold(self, unit: Unit) -> Hold:
        """Return the hold on a unit that exists."""
        hold = self.get(unit)
        assert hold is not None, unit
        return hold

    def put(self, unit: Unit, hold: Hold) -> None:
        """Replace the hold on a unit."""
        match unit.kind:
            case Kind.PLANNING:
                self.planning = hold
            case Kind.FINALIZING:
                self.finalizing = hold
            case Kind.SHARD:
                self.holds[unit.number] = hold

    def shard(self, number: int) -> Shard:
        """Return a shard with the epoch of its latest claim and the crashes of all."""
        hold = self.holds[number]
        return replace(self.shards[number], epoch=hold.epoch, crashes=hold.crashes)

    def claimable(self, now: float) -> Iterator[Shard]:
        """Yield the shards that may be claimed, lowest number first."""
        ending = batch_rules.is_ending(self.batch, now)
        for number in sorted(self.open):
            if claim_rules.is_claimable(self.holds[number], now, ending=ending):
                yield self.shards[number]

    def claimed_lines(self, now: float) -> int:
        """Return how many undone lines the live claims on shards have."""
        return sum(
            self.shards[number].plan.lines - count_done(self.shards[number].done)
            for number in self.open
            if claim_rules.is_live(self.holds[number], now)
        )


class MemoryTables(Store):
    """The rows of the ledger, and what several areas ask of them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._uploads: dict[str, Upload] = {}
        self._files: dict[str, Entry] = {}
        self._jobs: dict[str, Job] = {}
        self._live: dict[str, Job] = {}
        self._keys: dict[tuple[str, str], str] = {}
        self._members: dict[str, float] = {}
        self._writers: dict[str, Writer] = {}
        self._retained: dict[str, float] = {}

    def _needed(self) -> set[str]:
        """Return the blobs that rows point to."""
        needed = {part.blob for entry in self._files.values() for part in entry.parts}
        for job in self._live.values():
            if job.batch.plan_blob is not None:
                needed.add(job.batch.plan_blob)
        return needed

    def _retain(self, blobs: set[str], keep_seconds: float) -> None:
        until = self._clock.now() + keep_seconds
        for blob in blobs:
            self._retained[blob] = max(until, self._retained.get(blob, until))


def take(job: Job, unit: Unit, owner: str, expires_at: float) -> Claim:
    """Claim a unit of a job that is known to be claimable."""
    hold = claim_rules.taken(job.hold(unit), owner, expires_at)
    job.put(unit, hold)
    return Claim(unit=unit, owner=owner, epoch=hold.epoch, expires_at=expires_at)


def offers(jobs: Iterable[Job], now: float) -> Iterator[Offer]:
    """Yield one offer for each job and model that has claimable shards."""
    claimed = [(job, job.claimed_lines(now)) for job in jobs]
    by_tenant: dict[str, int] = {}
    for job, lines in claimed:
        by_tenant[job.batch.tenant] = by_tenant.get(job.batch.tenant, 0) + lines
    for job, lines in claimed:
        yield from _offers_of(job, now, lines, by_tenant[job.batch.tenant])


def _offers_of(job: Job, now: float, claimed_lines: int, tenant_lines: int) -> Iterator[Offer]:
    batch = job.batch
    shards: dict[str, int] = {}
    for shard in job.claimable(now):
        shards[shard.plan.model] = shards.get(shard.plan.model, 0) + 1
    for model, count in shards.items():
        yield Offer(
            batch_id=batch.id,
            tenant=batch.tenant,
            model=model,
            created_at=batch.created_at,
            expires_at=batch.expires_at,
            shards=count,
            claimed_lines=claimed_lines,
            tenant_lines=tenant_lines,
            ending=batch_rules.is_ending(batch, now),
        )


def place(item: File | Batch) -> tuple[float, str]:
    """Return what lists and claims are ordered by."""
    return item.created_at, item.id


def page(items: Iterable[Item], mark: Item | None, *, limit: int, ascending: bool) -> Page[Item]:
    """Cut one page out of all items: what follows `mark`, `limit` items at most."""
    assert limit > 0, limit
    ordered = sorted(items, key=place, reverse=not ascending)
    if mark is not None:
        start = place(mark)
        ordered = [
            item for item in ordered if (place(item) > start if ascending else place(item) < start)
        ]
    return Page(items=tuple(ordered[:limit]), has_more=len(ordered) > limit)
