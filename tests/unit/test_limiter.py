import pytest
from hypothesis import given, strategies as st

from tidegate.domain.errors import SettingsInvalid
from tidegate.endpoints.limiters.aimd import Aimd, AimdSettings


@given(events=st.lists(st.tuples(st.booleans(), st.floats(0, 5)), max_size=200))
def test_the_limit_stays_within_its_bounds(events: list[tuple[bool, float]]) -> None:
    limiter = Aimd(AimdSettings(start=4, min=2, max=9))
    now = 0.0
    for served, lag in events:
        now += 1.0
        before = limiter.limit
        in_flight = limiter.start()
        limiter.finish()
        if served:
            limiter.on_success(in_flight)
        else:
            limiter.on_overload(now - lag, now)
        assert 2 <= limiter.limit <= 9
        assert served or limiter.limit <= before


def test_a_burst_of_refusals_counts_once() -> None:
    limiter = Aimd(AimdSettings(start=100, min=1, max=100, factor=0.5))
    assert limiter.on_overload(1.0, 2.0)
    assert not any(limiter.on_overload(1.5, 2.1) for _ in range(50))
    assert limiter.limit == 50
    assert limiter.on_overload(2.5, 3.0)
    assert limiter.limit == 25


def test_a_full_window_of_successes_adds_one() -> None:
    limiter = Aimd(AimdSettings(start=10, min=1, max=20))
    for _ in range(10):
        limiter.start()
    for _ in range(11):
        limiter.on_success(10)
    assert limiter.limit == 11


def test_a_limit_that_is_not_used_does_not_grow() -> None:
    limiter = Aimd(AimdSettings(start=10, min=1, max=20))
    for _ in range(1_000):
        limiter.on_success(4)
    assert limiter.limit == 10
    for _ in range(11):
        limiter.on_success(5)
    assert limiter.limit == 11


def test_a_limit_of_one_grows_although_the_slot_is_given_back_first() -> None:
    limiter = Aimd(AimdSettings(start=1, min=1, max=20))
    in_flight = limiter.start()
    limiter.finish()
    limiter.on_success(in_flight)
    assert limiter.limit == 2


def test_the_start_is_kept_within_the_bounds() -> None:
    assert Aimd(AimdSettings(start=16, max=4)).limit == 4
    assert Aimd(AimdSettings(start=16, min=32)).limit == 32


def test_there_is_room_up_to_the_limit_and_not_beyond() -> None:
    limiter = Aimd(AimdSettings(start=2, min=1, max=2))
    limiter.start()
    assert limiter.has_room
    limiter.start()
    assert not limiter.has_room


@pytest.mark.parametrize(
    "wrong", [{"min": 0}, {"start": 0}, {"min": 257}, {"factor": 1.0}, {"step": 0.0}]
)
def test_impossible_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsInvalid):
        AimdSettings(**wrong)  # type: ignore[arg-type]  # that is what is tested
