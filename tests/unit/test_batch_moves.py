"""Batches change status only as their table says, for any calls in any order."""

from dataclasses import replace

import pytest
from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

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


TIMES = st.floats(0.0, 1_000.0)


class Moves(RuleBasedStateMachine):
    """Moves, cancels, results, last shards and ends, in any order and at times that run back."""

    def __init__(self) -> None:
        super().__init__()
        self.batch = a_batch()
        self.seen = [self.batch]

    def became(self, batch: Batch) -> None:
        if batch is not self.batch:
            assert batch.status in NEXT[self.batch.status]
            assert not self.batch.is_terminal, "something left a terminal status"
            self.batch = batch
            self.seen.append(batch)

    @rule(status=st.sampled_from(Status), at=TIMES)
    def ask(self, status: Status, at: float) -> None:
        try:
            batch = move(self.batch, status, at)
        except Conflict:
            assert status not in NEXT[self.batch.status]
        else:
            self.became(batch)

    @rule(at=TIMES)
    def cancel(self, at: float) -> None:
        before = self.batch
        try:
            self.became(ask_cancel(before, at))
        except Conflict:
            is_over = at >= before.expires_at or bool(before.counts.expired)
            assert is_over or Status.CANCELLING not in NEXT[before.status]
            assert before.status not in {Status.CANCELLING, Status.CANCELLED}
        else:
            assert self.batch.status in {Status.CANCELLING, Status.CANCELLED}

    @precondition(lambda self: self.batch.status is Status.VALIDATING)
    @rule(at=TIMES, total=st.integers(1, 5))
    def plan(self, at: float, total: int) -> None:
        self.became(replace(move(self.batch, Status.IN_PROGRESS, at), counts=Counts(total=total)))

    @precondition(lambda self: self.batch.status in {Status.IN_PROGRESS, Status.CANCELLING})
    @rule(kind=st.sampled_from(["completed", "failed", "expired"]))
    def a_line_ends(self, kind: str) -> None:
        counts = self.batch.counts
        if counts.completed + counts.failed < counts.total:
            more = {"completed": {"completed"}, "failed": {"failed"}}.get(kind, {"failed", kind})
            grown = {name: getattr(counts, name) + 1 for name in more}
            self.batch = replace(self.batch, counts=replace(counts, **grown))

    @precondition(lambda self: self.is_balanced)
    @rule(at=TIMES)
    def the_last_shard_ends(self, at: float) -> None:
        self.became(after_last_shard(self.batch, at))

    @rule(at=TIMES)
    def close_the_books(self, at: float) -> None:
        before = self.batch
        try:
            self.became(close(before, at))
        except AssertionError:
            assert not self.is_balanced
        except Conflict:
            assert before.status not in {Status.FINALIZING, Status.CANCELLING}
        else:
            if before.status is Status.CANCELLING:
                assert self.batch.status is Status.CANCELLED
            else:
                expired = bool(before.counts.expired)
                assert self.batch.status is (Status.EXPIRED if expired else Status.COMPLETED)

    @property
    def is_balanced(self) -> bool:
        counts = self.batch.counts
        return counts.completed + counts.failed == counts.total

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
        assert all(stamp >= self.batch.created_at for stamp in stamps)

    @invariant()
    def a_stamp_is_set_once(self) -> None:
        for batch in self.seen[1:]:
            name = f"{batch.status.value}_at"
            assert getattr(self.batch, name) == getattr(batch, name)


TestMoves = Moves.TestCase
TestMoves.settings = settings(max_examples=200, stateful_step_count=20)


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
