"""Polls and claims, in the memory ledger."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

from typing_extensions import override

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.ledger import batches as batch_rules, claims as claim_rules
from tidegate.domain.ledger.claims import Hold
from tidegate.domain.ledger.values import ClaimedBatch, ClaimedShard, ClaimedShards, Poll, Want
from tidegate.domain.share import in_order
from tidegate.stores.memory.tables import Job, MemoryTables, offers, place, take


class ClaimVerbs(MemoryTables):
    """Polls and claims."""

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
        states, members = await self.get_states(batch_ids), await self.list_members()
        now = self._clock.now()
        found = [
            offer
            for offer in in_order(offers((job for job in self._live.values() if job.open), now))
            if offer.model not in skip_models and (offer.ending or not ending_only)
        ]
        return Poll(
            now=now,
            members=len(members),
            rank=members.index(owner) if owner in members else None,
            statuses=states.by_id,
            offers=tuple(found[:offers_max]),
            planning_due=bool(self._free_plannings(ending_only=ending_only)),
            finalizing_due=bool(self._free_finalizings()),
        )

    @override
    async def claim_planning(
        self, owner: str, *, lease_seconds: float, ending_only: bool = False
    ) -> ClaimedBatch | None:
        free = self._free_plannings(ending_only=ending_only)
        return self._claim_oldest(free, Kind.PLANNING, owner, lease_seconds)

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
                job.put(claim.unit, claim_rules.handed_back(hold, now, wait_seconds))

    def _kept(self, claim: Claim) -> tuple[Job, Hold] | None:
        job = self._jobs.get(claim.unit.batch_id)
        hold = None if job is None else job.get(claim.unit)
        if job is None or hold is None or not claim_rules.is_kept(hold, claim):
            return None
        return job, hold

    def _free_plannings(self, *, ending_only: bool) -> list[Batch]:
        now = self._clock.now()
        return [
            job.batch
            for job in self._live.values()
            if claim_rules.is_claimable(
                job.planning, now, ending=batch_rules.is_ending(job.batch, now)
            )
            and (batch_rules.is_ending(job.batch, now) or not ending_only)
        ]

    def _free_finalizings(self) -> list[Batch]:
        now = self._clock.now()
        return [
            job.batch
            for job in self._live.values()
            if job.finalizing is not None
            and claim_rules.is_claimable(job.finalizing, now, ending=False)
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
