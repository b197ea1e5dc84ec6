"""Suspect lines and sandbox deaths (PROTOCOL 20), in the memory ledger."""

from dataclasses import replace

from typing_extensions import override

from tidegate.domain.claim import Claim, Kind
from tidegate.domain.ledger import quarantine as quarantine_rules
from tidegate.domain.shard import Shard
from tidegate.stores.memory.tables import Job, MemoryTables


class QuarantineVerbs(MemoryTables):
    """Suspect lines and sandbox deaths (PROTOCOL 20)."""

    @override
    async def record_suspect(self, claim: Claim, index: int) -> None:
        job, shard = self._working(claim, index)
        job.shards[claim.unit.number] = replace(shard, suspect=index)

    @override
    async def record_sandbox_death(self, claim: Claim, index: int) -> int:
        job, shard = self._working(claim, index)
        shard = quarantine_rules.with_recorded_death(shard, index)
        job.shards[claim.unit.number] = shard
        return shard.deaths.get(index, 0)

    def _working(self, claim: Claim, index: int) -> tuple[Job, Shard]:
        assert claim.unit.kind is Kind.SHARD, claim.unit
        job = self._jobs.get(claim.unit.batch_id)
        number = claim.unit.number
        known = job is not None and number in job.shards
        shard = job.shard(number) if job is not None and known else None
        shard = quarantine_rules.check_shard_claim(shard, claim, index)
        assert job is not None
        return job, shard
