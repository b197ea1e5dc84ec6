import pytest

from tidegate.domain.errors import SettingsInvalid
from tidegate.endpoints.endpoint import MODELS_MAX, BackoffSettings, Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream


async def answer(call: Call) -> Reply:
    return Reply(status=200, headers={}, body=b"{}")


def an_endpoint(**backoff: float) -> Endpoint:
    limits = AimdSettings(start=8, min=2, max=8)
    return Endpoint("e", MemoryUpstream(answer), limits=limits, backoff=BackoffSettings(**backoff))


def test_a_sick_endpoint_rests_and_is_then_tried_by_one() -> None:
    endpoint = an_endpoint(seconds_min=1.0, seconds_max=4.0)
    endpoint.on_start(0.0)
    endpoint.on_start(0.0)
    endpoint.on_fault(reason="refused", sent_at=0.0, now=1.0)
    endpoint.on_fault(reason="refused", sent_at=0.0, now=1.1)
    endpoint.limiter.finish()
    assert (endpoint.reason, endpoint.is_paused(1.9), endpoint.is_paused(2.0)) == (
        "refused",
        True,
        False,
    )
    assert not endpoint.has_room(2.5), "one of the crowd has not landed yet"
    endpoint.limiter.finish()
    assert endpoint.has_room(2.5)
    endpoint.on_start(2.5)
    assert not endpoint.has_room(2.6)
    endpoint.on_served("m", 3.0, 100, 1)
    assert (endpoint.reason, endpoint.has_room(3.0), endpoint.window) == (None, True, 8)


def test_pauses_double_up_to_the_bound() -> None:
    endpoint = an_endpoint(seconds_min=1.0, seconds_max=4.0)
    now, lengths = 0.0, []
    for _ in range(5):
        endpoint.on_fault(reason="refused", sent_at=now, now=now)
        lengths.append(endpoint.pause_left(now))
        now += lengths[-1]
    assert lengths == [1.0, 2.0, 4.0, 4.0, 4.0]


def test_a_retry_after_is_obeyed_up_to_its_bound() -> None:
    endpoint = an_endpoint(retry_after_seconds_max=60.0)
    endpoint.on_overload(reason="less", sent_at=0.0, now=0.0, after=60.0)
    assert endpoint.pause_left(0.0) == 60.0
    other = an_endpoint(retry_after_seconds_max=60.0)
    other.on_overload(reason="less", sent_at=0.0, now=0.0, after=61.0)
    assert other.pause_left(0.0) == 60.0


def test_an_overload_while_others_are_served_only_lowers_the_limit() -> None:
    endpoint = an_endpoint()
    endpoint.on_served("m", 5.0, 10, 1)
    endpoint.on_overload(reason="less", sent_at=4.0, now=6.0, after=None)
    assert (endpoint.limiter.limit, endpoint.is_paused(6.0)) == (5, False)


def test_a_model_counts_as_starting_until_it_was_served_or_the_time_is_over() -> None:
    endpoint = an_endpoint(starting_seconds=10.0)
    endpoint.on_start(100.0)
    assert endpoint.is_starting("m", 109.0)
    assert not endpoint.is_starting("m", 110.0)
    endpoint.on_served("m", 105.0, 10, 1)
    assert not endpoint.is_starting("m", 106.0)
    assert endpoint.is_starting("other", 106.0)


def test_each_model_behind_a_gateway_has_a_limit_of_its_own_up_to_the_bound() -> None:
    gateway = an_endpoint()
    routes = Routes(default=gateway)
    first = routes.find("model 0")
    assert first is not None
    first.on_served("model 0", 1.0, 10, 1)
    for number in range(1, MODELS_MAX + 5):
        routes.find(f"model {number}")
    assert len(list(routes.endpoints())) == MODELS_MAX
    assert routes.find("model 0") is first, "one that was served is not forgotten for idle ones"


def test_a_named_model_is_found_and_another_is_not() -> None:
    endpoint = an_endpoint()
    routes = Routes(by_model={"m": endpoint})
    assert routes.find("m") is endpoint
    assert routes.find("n") is None


def test_no_upstream_at_all_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="No upstream"):
        Routes()


@pytest.mark.parametrize(
    "wrong",
    [
        {"seconds_min": 0.0},
        {"seconds_min": 2.0, "seconds_max": 1.0},
        {"retry_after_seconds_max": -1.0},
        {"starting_seconds": -1.0},
    ],
)
def test_impossible_pauses_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsInvalid):
        BackoffSettings(**wrong)
