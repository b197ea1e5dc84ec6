"""What time it is by the ledger's clock is known within bounds, and never wrong by more."""

import math

from hypothesis import given, strategies as st

from tidegate.processor.leases.ledger_clock import ANSWERS_KEPT, LedgerClock

SECONDS = st.floats(0.0, 10.0)
GRAIN_SECONDS = 1e-6


def test_before_the_first_answer_nothing_may_be_sent_and_nothing_ended() -> None:
    time = LedgerClock()
    assert time.at_least(5.0) == -math.inf
    assert time.at_most(5.0) == math.inf


def test_one_answer_bounds_the_time_by_how_long_it_took() -> None:
    time = LedgerClock()
    time.record(1_000.0, asked_at=10.0, answered_at=13.0)
    assert (time.at_least(13.0), time.at_most(13.0)) == (1_000.0, 1_003.0)
    assert (time.at_least(20.0), time.at_most(20.0)) == (1_007.0, 1_010.0)


def test_a_slow_answer_does_not_worsen_the_estimate_of_a_quick_one() -> None:
    time = LedgerClock()
    time.record(1_000.0, asked_at=10.0, answered_at=10.0)
    time.record(1_002.0, asked_at=11.0, answered_at=19.0)
    assert (time.at_least(19.0), time.at_most(19.0)) == (1_009.0, 1_009.0)


def test_a_clock_that_was_set_is_believed_at_once() -> None:
    time = LedgerClock()
    for instant in (1_000.0, 9_000.0, 10.0):
        time.record(instant, asked_at=10.0, answered_at=10.0)
        assert (time.at_least(10.0), time.at_most(10.0)) == (instant, instant)


def test_a_clock_that_was_set_by_little_is_believed_after_a_few_answers() -> None:
    time = LedgerClock()
    time.record(1_000.0, asked_at=0.0, answered_at=0.0)
    for now in range(1, ANSWERS_KEPT + 1):
        assert time.at_most(now) == 1_000.0 + now, "no answer contradicts it"
        # A tenth of a second later than before, and returned within bounds of twice that.
        time.record(1_000.125 + now, asked_at=now - 0.25, answered_at=now + 0.25)
    assert time.at_most(0.0) == 1_000.375
    assert time.at_least(0.0) == 999.875


@given(ahead=st.floats(-4e6, 4e9), answers=st.lists(st.tuples(SECONDS, SECONDS, SECONDS)))
def test_a_steady_clock_always_lies_between_the_bounds(
    ahead: float, answers: list[tuple[float, float, float]]
) -> None:
    time = LedgerClock()
    now = 0.0
    for before, after, pause in answers:
        asked_at, now = now, now + before + after
        time.record(ahead + asked_at + before, asked_at=asked_at, answered_at=now)
        now += pause
        assert time.at_least(now) <= ahead + now + GRAIN_SECONDS
        assert time.at_most(now) >= ahead + now - GRAIN_SECONDS
