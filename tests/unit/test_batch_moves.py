"""A machine that asks a batch for any status at any later time."""

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tidegate.domain.batch import (
    LIVE,
    NEXT,
    TERMINAL,
    Batch,
    Counts,
    Status,
    after_last_shard,
    ask_cancel,
    close,
    move,
)
from tidegate.domain.errors import Conflict


def a_batch(status: Status = Status.VALIDATING, counts: Counts | None = None) -> Batch:
    return Batch(
        id="batch_1",
        tenant="default",
        endpoint="/v1/chat/completions",
        input_file_id="file-1",
        completion_window="24h",
        status=status,
        created_at=100.0,
        expires_at=200.0,
        counts=counts or Counts(),
    )


class Moves(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.batch = a_batch()
        self.seen = [self.batch]

    @rule(status=st.sampled_from(Status), at=st.floats(0.0, 1_000.0))
    def ask(self, status: Status, at: float) -> None:
        try:
            self.batch = move(self.batch, status, at)
        except Conflict:
            assert status not in NEXT[self.batch.status]
        else:
            self.seen.append(self.batch)

    @invariant()
    def at_most_one_terminal_status_was_reached(self) -> None:
        assert sum(batch.is_terminal for batch in self.seen) <= 1

    @invariant()
    def versions_count_the_moves(self) -> None:
        assert self.batch.version == len(self.seen) - 1

    @invariant()
    def stamps_never_run_back(self) -> None:
        moved = self.seen[1:]
        stamps = [getattr(batch, f"{batch.status.value}_at") for batch in moved]
        assert stamps == sorted(stamps)


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=60, stateful_step_count=20)


def test_every_status_is_terminal_or_live_and_terminal_ones_lead_nowhere() -> None:
    assert set(Status) == TERMINAL | LIVE
    assert not TERMINAL & LIVE
    assert all(not NEXT[status] for status in TERMINAL)


@pytest.mark.parametrize("status", [Status.VALIDATING, Status.IN_PROGRESS])
def test_a_batch_at_work_can_be_cancelled(status: Status) -> None:
    assert ask_cancel(a_batch(status), 150.0).status is Status.CANCELLING


@pytest.mark.parametrize("status", [Status.CANCELLING, Status.CANCELLED])
def test_cancelling_twice_changes_nothing(status: Status) -> None:
    batch = a_batch(status)
    assert ask_cancel(batch, 150.0) is batch


@pytest.mark.parametrize(
    "status", [Status.FINALIZING, Status.COMPLETED, Status.FAILED, Status.EXPIRED]
)
def test_what_ends_or_has_ended_cannot_be_cancelled(status: Status) -> None:
    with pytest.raises(Conflict, match=f"Cannot cancel a batch with status '{status}'"):
        ask_cancel(a_batch(status), 150.0)


def test_a_batch_that_began_to_expire_cannot_be_cancelled() -> None:
    batch = a_batch(Status.IN_PROGRESS, Counts(total=2, failed=1, expired=1))
    with pytest.raises(Conflict, match="window has closed"):
        ask_cancel(batch, 250.0)


def test_the_end_is_the_one_that_its_life_earned() -> None:
    def ended(status: Status, **counts: int) -> Status:
        return close(a_batch(status, Counts(**counts)), 150.0).status

    assert ended(Status.FINALIZING, total=2, completed=1, failed=1) is Status.COMPLETED
    assert ended(Status.FINALIZING, total=2, completed=1, failed=1, expired=1) is Status.EXPIRED
    assert ended(Status.CANCELLING, total=2, failed=2) is Status.CANCELLED
    assert ended(Status.CANCELLING, total=2, failed=2, expired=1) is Status.CANCELLED


def test_books_that_do_not_balance_are_never_closed() -> None:
    with pytest.raises(AssertionError):
        close(a_batch(Status.FINALIZING, Counts(total=2, completed=1)), 150.0)


def test_the_last_shard_moves_a_running_batch_and_leaves_a_cancelling_one() -> None:
    assert after_last_shard(a_batch(Status.IN_PROGRESS), 150.0).status is Status.FINALIZING
    cancelling = a_batch(Status.CANCELLING)
    assert after_last_shard(cancelling, 150.0) is cancelling
