"""Rules of commits (PROTOCOL 8): which results are accepted, and what they change."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tidegate.domain.batch import Batch, Status, after_last_shard
from tidegate.domain.file import Part, total_length
from tidegate.domain.ledger.values import Commit, ShardCommit
from tidegate.domain.shard import Shard, Tally, Verdict, apply, judge


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitOutcome:
    """What a commit changes. `shards` are the changed ones; parts are in the order given."""

    verdicts: tuple[Verdict, ...]
    shards: tuple[Shard, ...]
    tally: Tally
    outputs: tuple[Part, ...]
    errors: tuple[Part, ...]

    @property
    def ended(self) -> int:
        """Count the shards that ended with this commit."""
        return sum(shard.ended for shard in self.shards)


def evaluate_commit(
    commit: Commit, shards: Mapping[int, Shard], *, may_write: bool
) -> CommitOutcome:
    """Judge each shard's part alone and add up what the accepted ones change (PROTOCOL 8).

    If the writer was fenced or never begun, nothing new is accepted (PROTOCOL 18); shards that this
    segment recorded before still get their first answer.
    """
    numbers = [part.number for part in commit.shards]
    assert len(set(numbers)) == len(numbers), "a shard twice in one commit"
    if not may_write:
        return _only_answered(commit, shards)
    verdicts: list[Verdict] = []
    accepted: list[ShardCommit] = []
    for part in commit.shards:
        shard = shards.get(part.number)
        verdict = Verdict.STALE if shard is None else _judge(shard, part, commit.segment_id)
        verdicts.append(verdict)
        if shard is None or verdict is not Verdict.ACCEPTED:
            continue
        if shard.last_segment != commit.segment_id:  # A repeat has nothing left to apply.
            accepted.append(part)
    return CommitOutcome(
        verdicts=tuple(verdicts),
        shards=tuple(
            apply(shards[part.number], segment_id=commit.segment_id, indexes=part.indexes)
            for part in accepted
        ),
        tally=Tally.of_all([part.tally for part in accepted]),
        outputs=tuple(part.output for part in accepted if part.output is not None),
        errors=tuple(part.errors for part in accepted if part.errors is not None),
    )


def batch_after_commit(
    batch: Batch, outcome: CommitOutcome, *, open_shards: int, at: float
) -> Batch:
    """Return the batch with an outcome added; `open_shards` is what remains open after it."""
    assert outcome.shards, "nothing was accepted"
    assert batch.status in {Status.IN_PROGRESS, Status.CANCELLING}, batch.status
    assert open_shards >= 0, open_shards
    tally = outcome.tally
    counts = replace(
        batch.counts,
        completed=batch.counts.completed + tally.completed,
        failed=batch.counts.failed + tally.failed,
        expired=batch.counts.expired + tally.expired,
    )
    grown = replace(
        batch,
        counts=counts,
        usage=batch.usage + tally.usage,
        output_bytes=batch.output_bytes + total_length(outcome.outputs),
        error_bytes=batch.error_bytes + total_length(outcome.errors),
    )
    return grown if open_shards else after_last_shard(grown, at)


def file_extensions(
    batch: Batch, outcome: CommitOutcome
) -> list[tuple[str, str, tuple[Part, ...]]]:
    """Return (file id, file name, parts) for each file of the batch that an outcome lengthens."""
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    growth = [
        (batch.output_file_id, f"{batch.id}_output.jsonl", outcome.outputs),
        (batch.error_file_id, f"{batch.id}_error.jsonl", outcome.errors),
    ]
    return [entry for entry in growth if entry[2]]


def _only_answered(commit: Commit, shards: Mapping[int, Shard]) -> CommitOutcome:
    found = [shards.get(part.number) for part in commit.shards]
    again = [shard is not None and shard.last_segment == commit.segment_id for shard in found]
    verdicts = [Verdict.ACCEPTED if is_repeat else Verdict.STALE for is_repeat in again]
    if any(again):  # The others were refused then; judged again, they get the same reason.
        for place, (shard, part) in enumerate(zip(found, commit.shards, strict=True)):
            if shard is not None and not again[place]:
                verdict = _judge(shard, part, commit.segment_id)
                verdicts[place] = Verdict.STALE if verdict is Verdict.ACCEPTED else verdict
    return CommitOutcome(verdicts=tuple(verdicts), shards=(), tally=Tally(), outputs=(), errors=())


def _judge(shard: Shard, part: ShardCommit, segment_id: str) -> Verdict:
    tally = part.tally
    assert len(part.indexes) == tally.completed + tally.failed, "one result for each line"
    assert all(0 <= index < shard.plan.lines for index in part.indexes), "no such line"
    return judge(
        shard, epoch=part.epoch, sequence=part.sequence, segment_id=segment_id, indexes=part.indexes
    )
