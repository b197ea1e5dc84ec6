"""What the holder of a claim writes, in the memory ledger."""

from collections.abc import Sequence
from dataclasses import replace

from typing_extensions import override

from tidegate.domain.batch import Batch, Problem
from tidegate.domain.claim import Claim, Kind
from tidegate.domain.ledger import (
    batches as batch_rules,
    claims as claim_rules,
    commits as commit_rules,
    files as file_rules,
)
from tidegate.domain.ledger.claims import Hold
from tidegate.domain.ledger.values import Commit, Plan
from tidegate.domain.shard import Verdict
from tidegate.stores.memory.tables import Entry, Job, MemoryTables, Writer


class CommitVerbs(MemoryTables):
    """What the holder of a claim writes."""

    @override
    async def begin_writer(self, writer: str, *, batch_id: str, owner: str, at: float) -> None:
        if batch_id in self._jobs:
            self._writers.setdefault(writer, Writer(batch_id, owner))

    @override
    async def plan_batch(self, claim: Claim, plan: Plan, *, at: float) -> Batch:
        job = self._held(claim, Kind.PLANNING)
        batch = batch_rules.planned_batch(job.batch, job.planning, claim, plan, at)
        if batch is not job.batch:
            for cut in plan.shards:
                job.shards[cut.number] = batch_rules.new_shard(batch.id, cut)
                job.holds[cut.number] = Hold()
                job.open.add(cut.number)
            job.planning = replace(job.planning, ended=True)
            job.batch = batch
        return batch

    @override
    async def end_unplanned(self, claim: Claim, *, problems: Sequence[Problem], at: float) -> Batch:
        job = self._held(claim, Kind.PLANNING)
        job.batch = batch_rules.ended_without_plan(job.batch, job.planning, claim, problems, at)
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
        outcome = commit_rules.evaluate_commit(commit, shards, may_write=may_write)
        if outcome.shards:
            self._record(job, outcome, commit.at)
        return list(outcome.verdicts)

    @override
    async def finish_batch(self, claim: Claim, *, at: float) -> Batch:
        job = self._held(claim, Kind.FINALIZING)
        batch = batch_rules.finished_batch(job.batch, job.finalizing, claim, at)
        if batch is job.batch:
            return batch
        assert job.finalizing is not None
        job.finalizing = replace(job.finalizing, ended=True)
        job.batch = batch
        for file_id in (batch.output_file_id, batch.error_file_id):
            entry = self._files.get(file_id or "")
            if entry is not None:
                entry.file = file_rules.finalized_file(entry.file, batch, at)
        del self._live[batch.id]
        return batch

    def _held(self, claim: Claim, kind: Kind) -> Job:
        assert claim.unit.kind is kind, claim.unit
        job = self._jobs.get(claim.unit.batch_id)
        if job is None:
            raise claim_rules.claim_lost(claim)
        return job

    def _record(self, job: Job, outcome: commit_rules.CommitOutcome, at: float) -> None:
        for shard in outcome.shards:
            number = shard.plan.number
            job.shards[number] = shard
            if shard.ended:
                job.holds[number] = replace(job.holds[number], ended=True)
                job.open.remove(number)
        for growth in commit_rules.file_extensions(job.batch, outcome):
            file_id, _, parts = growth
            entry = self._files.get(file_id)
            file = file_rules.extended_file(
                None if entry is None else entry.file, job.batch, growth, at
            )
            if entry is None:
                entry = self._files[file_id] = Entry(file, [])
            entry.file = file
            entry.append(parts)
        job.batch = commit_rules.batch_after_commit(
            job.batch, outcome, open_shards=len(job.open), at=at
        )
        if not job.open:
            job.finalizing = Hold()
