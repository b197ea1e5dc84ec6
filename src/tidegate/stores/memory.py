"""A ledger in this process's memory: for tests, simulations and trying things out.

Nothing survives the process. No method awaits, so each is atomic on one event loop. Opening and
closing change nothing: several simulated processes may share one store and outlive each other.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from typing_extensions import override

from tidegate.domain.batch import Batch, Problem, ask_cancel
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.file import File, Part, Purpose, merged
from tidegate.domain.shard import Verdict
from tidegate.domain.share import in_order
from tidegate.stores import ledger
from tidegate.stores.base import (
    ClaimedBatch,
    ClaimedShard,
    ClaimedShards,
    Commit,
    Page,
    Plan,
    Poll,
    States,
    Store,
    Want,
)
from tidegate.stores.health import OldestBatch, StoreHealth
from tidegate.stores.ledger import Hold
from tidegate.stores.memory_rows import Entry, Job, Upload, offers, page, place, take
from tidegate.stores.memory_upkeep import MemoryUpkeep


class MemoryStore(MemoryUpkeep, Store):
    """A ledger that lives and dies with the process."""

    @property
    @override
    def durable(self) -> bool:
        return False

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    @override
    async def check(self) -> None:
        pass

    @override
    async def health(self) -> StoreHealth:
        now = self._clock.now()
        live = [job.batch for job in self._live.values()]
        oldest = min(live, key=place, default=None)
        return StoreHealth(
            engine="memory",
            durable=False,
            schema=1,
            schema_known=1,
            members=len(await self.get_living()),
            batches=Counter(job.batch.status.value for job in self._jobs.values()),
            oldest=None if oldest is None else _oldest(oldest),
            overdue=sum(batch.expires_at <= now for batch in live),
        )

    @override
    async def begin_upload(self, upload_id: str, *, tenant: str, blob: str, at: float) -> None:
        self._uploads.setdefault(upload_id, Upload(tenant, blob, at))

    @override
    async def finish_upload(self, upload_id: str, file: File, parts: Sequence[Part]) -> File:
        upload = self._uploads.get(upload_id)
        if upload is None or upload.abandoned:
            raise ledger.upload_lost(upload_id)
        if upload.file_id is None:
            ledger.check_upload(file, parts, tenant=upload.tenant)
            self._files[file.id] = Entry(file, merged(parts))
            upload.file_id = file.id
        return self._files[upload.file_id].file

    @override
    async def abandon_upload(self, upload_id: str) -> bool:
        upload = self._uploads.get(upload_id)
        if upload is None:
            return True
        upload.abandoned = upload.file_id is None
        return upload.abandoned

    @override
    async def get_file(self, tenant: str, file_id: str) -> File:
        return self._visible(tenant, file_id).file

    @override
    async def get_parts(self, tenant: str, file_id: str) -> tuple[File, tuple[Part, ...]]:
        entry = self._visible(tenant, file_id)
        return entry.file, tuple(entry.parts)

    @override
    async def list_files(
        self,
        tenant: str,
        *,
        after: str | None,
        limit: int,
        ascending: bool,
        purpose: Purpose | None,
    ) -> Page[File]:
        now = self._clock.now()
        mark = None
        if after is not None:
            entry = self._files.get(after)
            if entry is None or entry.file.tenant != tenant:
                raise ledger.no_file(after, param="after")
            mark = entry.file
        files = [
            entry.file
            for entry in self._files.values()
            if entry.file.tenant == tenant
            and ledger.is_visible(entry.file, now, deleted=entry.deleted)
            and (purpose is None or entry.file.purpose is purpose)
        ]
        return page(files, mark, limit=limit, ascending=ascending)

    @override
    async def delete_file(self, tenant: str, file_id: str) -> None:
        entry = self._visible(tenant, file_id)
        ledger.check_deletable(entry.file)
        entry.deleted = True

    @override
    async def create_batch(self, batch: Batch) -> Batch:
        ledger.check_new(batch)
        known = batch.id
        if batch.idempotency_key is not None:
            known = self._keys.get((batch.tenant, batch.idempotency_key), batch.id)
        if known in self._jobs:
            return self._jobs[known].batch
        entry = self._files.get(batch.input_file_id)
        holds_input = (
            entry is not None
            and entry.file.tenant == batch.tenant
            and ledger.is_visible(entry.file, self._clock.now(), deleted=entry.deleted)
        )
        self._jobs[batch.id] = self._live[batch.id] = Job(batch, holds_input)
        if batch.idempotency_key is not None:
            self._keys[batch.tenant, batch.idempotency_key] = batch.id
        return batch

    @override
    async def get_batch(self, tenant: str, batch_id: str) -> Batch:
        return self._job(tenant, batch_id).batch

    @override
    async def list_batches(self, tenant: str, *, after: str | None, limit: int) -> Page[Batch]:
        mark = None if after is None else self._job(tenant, after, param="after").batch
        batches = [job.batch for job in self._jobs.values() if job.batch.tenant == tenant]
        return page(batches, mark, limit=limit, ascending=False)

    @override
    async def cancel_batch(self, tenant: str, batch_id: str, *, at: float) -> Batch:
        job = self._job(tenant, batch_id)
        job.batch = ask_cancel(job.batch, at)
        return job.batch

    @override
    async def get_states(self, batch_ids: Sequence[str]) -> States:
        found = {key: self._jobs[key].batch.status for key in batch_ids if key in self._jobs}
        return States(now=self._clock.now(), by_id=found)

    @override
    async def note_waiting(self, batch_id: str, reason: str | None) -> None:
        job = self._live.get(batch_id)
        if job is not None:
            job.batch = replace(job.batch, waiting_for=reason)

    @override
    async def claim_planning(
        self, owner: str, *, lease_seconds: float, ending_only: bool = False
    ) -> ClaimedBatch | None:
        free = self._free_plannings(ending_only=ending_only)
        return self._claim_oldest(free, Kind.PLANNING, owner, lease_seconds)

    @override
    async def get_input(self, batch_id: str) -> tuple[Part, ...] | None:
        job = self._jobs.get(batch_id)
        if job is None or not job.holds_input:
            return None
        entry = self._files.get(job.batch.input_file_id)
        return None if entry is None or entry.released else tuple(entry.parts)

    @override
    async def poll(
        self,
        owner: str,
        *,
        offers_max: int,
        batch_ids: Sequence[str] = (),
        skip_models: Collection[str] = (),
        ending_only: bool = False,
    ) -> Poll:
        states, living, now = (
            await self.get_states(batch_ids),
            await self.get_living(),
            self._clock.now(),
        )
        found = [
            offer
            for offer in in_order(offers((job for job in self._live.values() if job.open), now))
            if offer.model not in skip_models and (offer.ending or not ending_only)
        ]
        return Poll(
            now=now,
            members=len(living),
            rank=living.index(owner) if owner in living else None,
            statuses=states.by_id,
            offers=tuple(found[:offers_max]),
            planning_due=bool(self._free_plannings(ending_only=ending_only)),
            finalizing_due=bool(self._free_finalizings()),
        )

    @override
    async def claim_shards(
        self, owner: str, wants: Sequence[Want], *, lease_seconds: float
    ) -> list[ClaimedShards]:
        now = self._clock.now()
        claimed: dict[str, list[ClaimedShard]] = {}
        for want in wants:
            job = self._live.get(want.batch_id)
            if job is None:
                continue
            numbers = [s.plan.number for s in job.claimable(now) if s.plan.model == want.model]
            for number in numbers[: want.limit]:
                unit = Unit(batch_id=want.batch_id, kind=Kind.SHARD, number=number)
                claim = take(job, unit, owner, now + lease_seconds)
                shard = ClaimedShard(claim=claim, shard=job.shard(number))
                claimed.setdefault(want.batch_id, []).append(shard)
        return [
            ClaimedShards(batch=self._jobs[batch_id].batch, shards=tuple(shards))
            for batch_id, shards in claimed.items()
        ]

    @override
    async def claim_finalizing(self, owner: str, *, lease_seconds: float) -> ClaimedBatch | None:
        return self._claim_oldest(self._free_finalizings(), Kind.FINALIZING, owner, lease_seconds)

    @override
    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Unit]:
        expires_at = self._clock.now() + lease_seconds
        lost: list[Unit] = []
        for claim in claims:
            kept = self._kept(claim)
            if kept is None:
                lost.append(claim.unit)
            else:
                job, hold = kept
                job.put(claim.unit, replace(hold, expires_at=expires_at))
        return lost

    @override
    async def hand_back(self, claims: Sequence[Claim], *, wait_seconds: float = 0.0) -> None:
        now = self._clock.now()
        for claim in claims:
            kept = self._kept(claim)
            if kept is not None:
                job, hold = kept
                job.put(claim.unit, ledger.handed_back(hold, now, wait_seconds))

    @override
    async def plan_batch(self, claim: Claim, plan: Plan, *, at: float) -> Batch:
        job = self._held(claim, Kind.PLANNING)
        batch = ledger.planned(job.batch, job.planning, claim, plan, at)
        if batch is not job.batch:
            for cut in plan.shards:
                job.shards[cut.number] = ledger.new_shard(batch.id, cut)
                job.holds[cut.number] = Hold()
                job.open.add(cut.number)
            job.planning = replace(job.planning, ended=True)
            job.batch = batch
        return batch

    @override
    async def end_unplanned(self, claim: Claim, *, problems: Sequence[Problem], at: float) -> Batch:
        job = self._held(claim, Kind.PLANNING)
        job.batch = ledger.ended_unplanned(job.batch, job.planning, claim, problems, at)
        job.planning = replace(job.planning, ended=True)
        self._live.pop(job.batch.id, None)
        return job.batch

    @override
    async def commit(self, commit: Commit) -> list[Verdict]:
        job = self._jobs.get(commit.batch_id)
        if job is None:
            return [Verdict.STALE] * len(commit.shards)
        numbers = [part.number for part in commit.shards if part.number in job.shards]
        writer = self._writers.get(commit.writer)
        may_write = writer is not None and writer.batch_id == job.batch.id and not writer.fenced
        shards = {number: job.shard(number) for number in numbers}
        outcome = ledger.weigh(commit, shards, may_write=may_write)
        if outcome.shards:
            self._record(job, outcome, commit.at)
        return list(outcome.verdicts)

    @override
    async def finish_batch(self, claim: Claim, *, at: float) -> Batch:
        job = self._held(claim, Kind.FINALIZING)
        batch = ledger.finished(job.batch, job.finalizing, claim, at)
        if batch is job.batch:
            return batch
        assert job.finalizing is not None
        job.finalizing = replace(job.finalizing, ended=True)
        job.batch = batch
        for file_id in (batch.output_file_id, batch.error_file_id):
            entry = self._files.get(file_id or "")
            if entry is not None:
                entry.file = ledger.final(entry.file, batch, at)
        del self._live[batch.id]
        return batch

    def _visible(self, tenant: str, file_id: str) -> Entry:
        entry = self._files.get(file_id)
        if (
            entry is None
            or entry.file.tenant != tenant
            or not ledger.is_visible(entry.file, self._clock.now(), deleted=entry.deleted)
        ):
            raise ledger.no_file(file_id)
        return entry

    def _job(self, tenant: str, batch_id: str, *, param: str | None = None) -> Job:
        job = self._jobs.get(batch_id)
        if job is None or job.batch.tenant != tenant:
            raise ledger.no_batch(batch_id, param=param)
        return job

    def _held(self, claim: Claim, kind: Kind) -> Job:
        assert claim.unit.kind is kind, claim.unit
        job = self._jobs.get(claim.unit.batch_id)
        if job is None:
            raise ledger.lost(claim)
        return job

    def _kept(self, claim: Claim) -> tuple[Job, Hold] | None:
        job = self._jobs.get(claim.unit.batch_id)
        hold = None if job is None else job.get(claim.unit)
        if job is None or hold is None or not ledger.is_kept(hold, claim):
            return None
        return job, hold

    def _free_plannings(self, *, ending_only: bool) -> list[Batch]:
        now = self._clock.now()
        return [
            job.batch
            for job in self._live.values()
            if ledger.is_claimable(job.planning, now, ending=ledger.is_ending(job.batch, now))
            and (ledger.is_ending(job.batch, now) or not ending_only)
        ]

    def _free_finalizings(self) -> list[Batch]:
        now = self._clock.now()
        return [
            job.batch
            for job in self._live.values()
            if job.finalizing is not None and ledger.is_claimable(job.finalizing, now, ending=False)
        ]

    def _claim_oldest(
        self, batches: Iterable[Batch], kind: Kind, owner: str, lease_seconds: float
    ) -> ClaimedBatch | None:
        oldest = min(batches, key=place, default=None)
        if oldest is None:
            return None
        unit = Unit(batch_id=oldest.id, kind=kind)
        job = self._jobs[oldest.id]
        claim = take(job, unit, owner, self._clock.now() + lease_seconds)
        return ClaimedBatch(claim=claim, batch=oldest, crashes=job.hold(unit).crashes)

    def _record(self, job: Job, outcome: ledger.Outcome, at: float) -> None:
        for shard in outcome.shards:
            number = shard.plan.number
            job.shards[number] = shard
            if shard.ended:
                job.holds[number] = replace(job.holds[number], ended=True)
                job.open.remove(number)
        for growth in ledger.appended(job.batch, outcome):
            file_id, _, parts = growth
            entry = self._files.get(file_id)
            file = ledger.grown(None if entry is None else entry.file, job.batch, growth, at)
            if entry is None:
                entry = self._files[file_id] = Entry(file, [])
            entry.file = file
            entry.append(parts)
        job.batch = ledger.recorded(job.batch, outcome, open_shards=len(job.open), at=at)
        if not job.open:
            job.finalizing = Hold()


def _oldest(batch: Batch) -> OldestBatch:
    """Return what an operator is shown of a batch."""
    return OldestBatch(
        batch_id=batch.id,
        status=batch.status.value,
        created_at=batch.created_at,
        expires_at=batch.expires_at,
        waiting_for=batch.waiting_for,
    )
