"""Rules of a batch's life in the ledger: creation, plan, end.

`now` is the ledger's time, `at` an instant chosen by the caller.
"""

from collections.abc import Sequence
from dataclasses import replace

from tidegate.domain.batch import Batch, Counts, Problem, Status, close, move
from tidegate.domain.claim import Claim
from tidegate.domain.errors import ClaimLost, NotFound
from tidegate.domain.ledger import claims as claim_rules
from tidegate.domain.ledger.claims import Hold
from tidegate.domain.ledger.values import Plan
from tidegate.domain.shard import Shard, ShardPlan, no_lines_done


def no_batch(batch_id: str, *, param: str | None = None) -> NotFound:
    """Return the error for a batch that the tenant doesn't have."""
    return NotFound(f"No batch found with id '{batch_id}'.", param=param)


def check_new(batch: Batch) -> None:
    """Assert that a batch is new, before it is recorded."""
    assert batch.status is Status.VALIDATING, batch.status
    assert batch.version == 0, batch.version


def is_ending(batch: Batch, now: float) -> bool:
    """Return whether no further line of the batch may run (PROTOCOL 14)."""
    return batch.status is Status.CANCELLING or now >= batch.expires_at


def is_due_to_end(batch: Batch, now: float) -> bool:
    """Return whether a batch only needs to be ended: it is not terminal, and no line may run."""
    return not batch.is_terminal and (batch.status is Status.FINALIZING or is_ending(batch, now))


def planned_batch(batch: Batch, hold: Hold, claim: Claim, plan: Plan, at: float) -> Batch:
    """Return the batch in progress with its plan; the very same batch if this is a repeat.

    Raises:
        ClaimLost: the planning has a higher epoch, or the batch is no longer validating.
    """
    claim_rules.check_epoch(hold, claim)
    if batch.plan_blob == plan.blob:
        return batch
    if batch.status is not Status.VALIDATING:
        raise ClaimLost(f"Batch '{batch.id}' is '{batch.status}' and takes no plan; read it again.")
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


def ended_without_plan(
    batch: Batch, hold: Hold, claim: Claim, problems: Sequence[Problem], at: float
) -> Batch:
    """Return the batch ended without a plan; the very same batch if this is a repeat.

    Raises:
        ClaimLost: the planning has a higher epoch, or has ended with a plan.
    """
    claim_rules.check_epoch(hold, claim)
    if batch.is_planned:
        raise ClaimLost(
            f"Batch '{batch.id}' has a plan, so it can't end without one; drop this claim."
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


def finished_batch(batch: Batch, hold: Hold | None, claim: Claim, at: float) -> Batch:
    """Return the batch in its terminal status; the very same batch if this is a repeat.

    Raises:
        ClaimLost: the finalizing has a higher epoch, or has not opened.
    """
    if hold is None:
        raise ClaimLost(f"Batch '{batch.id}' still has open shards, so it can't be finished yet.")
    claim_rules.check_epoch(hold, claim)
    if batch.is_terminal:
        return batch
    return replace(close(batch, at), waiting_for=None)
