"""What every ledger does alike: pure functions from stored values and a request to new values.

The back-ends load rows, call these, and write what they return, so that they can't drift apart.
Nothing here reads a clock: `now` is the ledger's time, `at` an instant chosen by the caller.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate.domain.batch import Batch, Counts, Problem, Status, after_last_shard, close, move
from tidegate.domain.claim import Claim
from tidegate.domain.errors import ClaimLost, Conflict, NotFound
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.shard import Shard, ShardPlan, Tally, Verdict, apply, judge, no_lines_done
from tidegate.stores.base import Commit, Plan, ShardCommit


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Who may work on a unit. `epoch` counts the claims ever taken; an ended unit keeps its last.

    A unit that was never claimed or was handed back has no owner and `expires_at` 0; one whose
    lines run again keeps its owner with `expires_at` 0 and a higher epoch (PROTOCOL 19).
    `not_before`, an instant of the ledger's clock, keeps others away for a while after a hand-back.
    `crashes` counts the claims that another owner took over although they had not been handed back.
    """

    owner: str | None = None
    epoch: int = 0
    expires_at: float = 0.0
    not_before: float | None = None
    ended: bool = False
    crashes: int = 0


def is_ending(batch: Batch, now: float) -> bool:
    """Say whether the batch's remaining lines only have to be ended (PROTOCOL 14)."""
    return batch.status is Status.CANCELLING or now >= batch.expires_at


def has_run(batch: Batch, now: float) -> bool:
    """Say whether nothing is left of a batch but to end it: no line of it may run any more."""
    return not batch.is_terminal and (batch.status is Status.FINALIZING or is_ending(batch, now))


def is_live(hold: Hold, now: float) -> bool:
    """Say whether somebody holds the unit and the claim has not expired."""
    return not hold.ended and now < hold.expires_at


def is_claimable(hold: Hold, now: float, *, ending: bool) -> bool:
    """Say whether the unit may be claimed. `ending` lifts the wait after a hand-back."""
    if hold.ended or is_live(hold, now):
        return False
    return ending or hold.not_before is None or hold.not_before <= now


def taken(hold: Hold, owner: str, expires_at: float) -> Hold:
    """Return the hold after a claim: a higher epoch, which ends every earlier right to write."""
    assert not hold.ended, "an ended unit was claimed"
    crashed = hold.owner is not None and hold.owner != owner
    return Hold(
        owner=owner,
        epoch=hold.epoch + 1,
        expires_at=expires_at,
        crashes=hold.crashes + int(crashed),
    )


def fenced(hold: Hold) -> Hold:
    """Return the hold after a collector ended an expired claim: its owner writes no more."""
    assert not hold.ended, "an ended unit was fenced"
    crashed = hold.owner is not None
    return replace(
        hold,
        owner=None,
        epoch=hold.epoch + 1,
        expires_at=0.0,
        crashes=hold.crashes + int(crashed),
    )


def handed_back(hold: Hold, now: float, wait_seconds: float) -> Hold:
    """Return the hold after its owner gave it up; the epoch stays until the next claim."""
    not_before = after_wait(now, wait_seconds)
    return replace(hold, owner=None, expires_at=0.0, not_before=not_before)


def after_wait(now: float, wait_seconds: float) -> float | None:
    """Return from when on a unit that is handed back may be claimed; None where that is at once."""
    assert 0.0 <= wait_seconds < math.inf, wait_seconds
    return now + wait_seconds if wait_seconds > 0.0 else None


def is_kept(hold: Hold | None, claim: Claim) -> bool:
    """Say whether the claim is still its owner's: not ended, handed back or taken over."""
    if hold is None or hold.ended:
        return False
    return hold.epoch == claim.epoch and hold.owner == claim.owner


def no_file(file_id: str, *, param: str = "id") -> NotFound:
    """Return the error for a file that the tenant doesn't have."""
    return NotFound(f"No such File object: {file_id}", param=param)


def no_batch(batch_id: str, *, param: str | None = None) -> NotFound:
    """Return the error for a batch that the tenant doesn't have."""
    return NotFound(f"No batch found with id '{batch_id}'.", param=param)


def is_visible(file: File, now: float, *, deleted: bool) -> bool:
    """Say whether users can see the file: not deleted, not past its expiry."""
    return not deleted and (file.expires_at is None or now < file.expires_at)


def check_deletable(file: File) -> None:
    """Refuse to delete a file that a batch is still writing.

    Raises:
        Conflict: it grows.
    """
    if file.growing:
        raise Conflict(
            f"The file '{file.id}' is still being written by batch '{file.batch_id}'. "
            "Cancel the batch or wait until it has ended, then delete the file.",
            param="id",
        )


def upload_lost(upload_id: str) -> ClaimLost:
    """Return the error for an upload that was abandoned or never begun."""
    return ClaimLost(f"The upload '{upload_id}' was abandoned or never begun; upload anew.")


def check_upload(file: File, parts: Sequence[Part], *, tenant: str) -> None:
    """Assert that an uploaded file is its upload's and as long as its parts."""
    assert file.tenant == tenant, "the file of another tenant"
    assert not file.growing, "an upload is whole"
    assert file.bytes == _length(parts), "the parts are not the file"


def check_new(batch: Batch) -> None:
    """Assert that a batch that is to be recorded is at the start of its life."""
    assert batch.status is Status.VALIDATING, batch.status
    assert batch.version == 0, batch.version


def planned(batch: Batch, hold: Hold, claim: Claim, plan: Plan, at: float) -> Batch:
    """Return the batch in progress with its plan; the very same batch where that is a repeat.

    Raises:
        ClaimLost: the planning has a higher epoch, or the batch is no longer validating.
    """
    _check_epoch(hold, claim)
    if batch.plan_blob == plan.blob:
        return batch
    if batch.status is not Status.VALIDATING:
        raise ClaimLost(
            f"Batch '{batch.id}' is '{batch.status}' and takes no plan; read it again and go on "
            "from there."
        )
    assert plan.shards, "a plan has at least one shard"
    assert plan.total == sum(shard.lines for shard in plan.shards), "the total is not the sum"
    assert len({shard.number for shard in plan.shards}) == len(plan.shards), "a number twice"
    return replace(
        move(batch, Status.IN_PROGRESS, at),
        counts=Counts(total=plan.total),
        models=plan.models,
        plan_blob=plan.blob,
        output_file_id=plan.output_file_id,
        error_file_id=plan.error_file_id,
        waiting_for=None,
    )


def new_shard(batch_id: str, plan: ShardPlan) -> Shard:
    """Return a planned shard before its first claim."""
    return Shard(batch_id=batch_id, plan=plan, done=no_lines_done(plan.lines))


def ended_unplanned(
    batch: Batch, hold: Hold, claim: Claim, problems: Sequence[Problem], at: float
) -> Batch:
    """Return the batch ended without a plan; the very same batch where that is a repeat.

    Raises:
        ClaimLost: the planning has a higher epoch, or has ended with a plan.
    """
    _check_epoch(hold, claim)
    if batch.is_planned:
        raise ClaimLost(
            f"Batch '{batch.id}' has a plan by now, so it can't end without one; drop this claim."
        )
    if batch.is_terminal:
        return batch
    if batch.status is Status.CANCELLING:
        ended = move(batch, Status.CANCELLED, at)
    elif problems:
        ended = replace(move(batch, Status.FAILED, at), problems=tuple(problems))
    else:
        ended = move(batch, Status.EXPIRED, at)
    return replace(ended, waiting_for=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
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


def weigh(commit: Commit, shards: Mapping[int, Shard], *, may_write: bool) -> Outcome:
    """Judge each shard's part alone and add up what the accepted ones change (PROTOCOL 8).

    Where the writer may write no more, or never might, nothing new is accepted (PROTOCOL 18); what
    was recorded under this segment before still gets its first answer.
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
    return Outcome(
        verdicts=tuple(verdicts),
        shards=tuple(
            apply(shards[part.number], segment_id=commit.segment_id, indexes=part.indexes)
            for part in accepted
        ),
        tally=Tally.of_all([part.tally for part in accepted]),
        outputs=tuple(part.output for part in accepted if part.output is not None),
        errors=tuple(part.errors for part in accepted if part.errors is not None),
    )


def recorded(batch: Batch, outcome: Outcome, *, open_shards: int, at: float) -> Batch:
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
        output_bytes=batch.output_bytes + _length(outcome.outputs),
        error_bytes=batch.error_bytes + _length(outcome.errors),
    )
    return grown if open_shards else after_last_shard(grown, at)


def appended(batch: Batch, outcome: Outcome) -> list[tuple[str, str, tuple[Part, ...]]]:
    """Return (file id, file name, parts) for each file of the batch that an outcome lengthens."""
    assert batch.output_file_id is not None
    assert batch.error_file_id is not None
    growth = [
        (batch.output_file_id, f"{batch.id}_output.jsonl", outcome.outputs),
        (batch.error_file_id, f"{batch.id}_error.jsonl", outcome.errors),
    ]
    return [entry for entry in growth if entry[2]]


def grown(
    file: File | None, batch: Batch, growth: tuple[str, str, tuple[Part, ...]], at: float
) -> File:
    """Return a batch's file longer by these parts, new where it is the first of them."""
    file_id, filename, parts = growth
    if file is None:
        file = File(
            id=file_id,
            tenant=batch.tenant,
            filename=filename,
            purpose=Purpose.BATCH_OUTPUT,
            bytes=0,
            created_at=at,
            batch_id=batch.id,
            growing=True,
        )
    assert file.growing, f"file '{file_id}' is final"
    return replace(file, bytes=file.bytes + _length(parts))


def finished(batch: Batch, hold: Hold | None, claim: Claim, at: float) -> Batch:
    """Return the batch in its terminal status; the very same batch where that is a repeat.

    Raises:
        ClaimLost: the finalizing has a higher epoch, or has not opened.
    """
    if hold is None:
        raise ClaimLost(f"Batch '{batch.id}' still has open shards, so nobody may close it.")
    _check_epoch(hold, claim)
    if batch.is_terminal:
        return batch
    return replace(close(batch, at), waiting_for=None)


def final(file: File, batch: Batch, at: float) -> File:
    """Return a file of a closed batch: it grows no more, and its time to live begins."""
    seconds = batch.output_expires_seconds
    return replace(file, growing=False, expires_at=None if seconds is None else at + seconds)


def lost(claim: Claim) -> ClaimLost:
    """Return the error for a claim on a unit that somebody else took or that doesn't exist."""
    unit = claim.unit
    return ClaimLost(
        f"The {unit.kind} of batch '{unit.batch_id}' is no longer yours (epoch {claim.epoch}); "
        "drop the work and claim anew."
    )


def _only_answered(commit: Commit, shards: Mapping[int, Shard]) -> Outcome:
    found = [shards.get(part.number) for part in commit.shards]
    again = [shard is not None and shard.last_segment == commit.segment_id for shard in found]
    verdicts = [Verdict.ACCEPTED if is_repeat else Verdict.STALE for is_repeat in again]
    if any(again):  # The others were refused then; judged again, they hear the same reason.
        for place, (shard, part) in enumerate(zip(found, commit.shards, strict=True)):
            if shard is not None and not again[place]:
                verdict = _judge(shard, part, commit.segment_id)
                verdicts[place] = Verdict.STALE if verdict is Verdict.ACCEPTED else verdict
    return Outcome(verdicts=tuple(verdicts), shards=(), tally=Tally(), outputs=(), errors=())


def _check_epoch(hold: Hold, claim: Claim) -> None:
    if hold.epoch != claim.epoch:
        raise lost(claim)


def _judge(shard: Shard, part: ShardCommit, segment_id: str) -> Verdict:
    tally = part.tally
    assert len(part.indexes) == tally.completed + tally.failed, "one result for each line"
    assert all(0 <= index < shard.plan.lines for index in part.indexes), "no such line"
    return judge(
        shard,
        epoch=part.epoch,
        sequence=part.sequence,
        segment_id=segment_id,
        indexes=part.indexes,
    )


def _length(parts: Sequence[Part]) -> int:
    return sum(part.length for part in parts)
