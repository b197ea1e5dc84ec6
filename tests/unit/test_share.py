"""The parts of a limit: they sum to it for any members, and none of them starves."""

from collections import Counter

from hypothesis import given, strategies as st

from testkit.scenarios.scenario import at_once
from tidegate.domain.share import part_of
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import NOTHING_SECONDS, Aimd, AimdSettings
from tidegate.upstreams.memory import MemoryUpstream


@given(limit=st.integers(0, 10_000), count=st.integers(1, 200))
def test_the_parts_sum_to_the_limit(limit: int, count: int) -> None:
    parts = [part_of(limit, rank=rank, count=count) for rank in range(count)]
    assert sum(parts) == limit
    assert max(parts) - min(parts) <= 1
    assert sorted(parts, reverse=True) == parts


@given(low=st.integers(0, 500), more=st.integers(0, 500), count=st.integers(1, 20), data=st.data())
def test_a_higher_limit_has_no_smaller_part(
    low: int, more: int, count: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, count - 1))
    assert part_of(low, rank=rank, count=count) <= part_of(low + more, rank=rank, count=count)


@given(
    highest=st.integers(1, 12),
    count=st.integers(1, 6),
    events=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=150),
)
def test_all_members_together_stay_within_the_highest_limit_they_learn(
    highest: int, count: int, events: list[tuple[int, bool]]
) -> None:
    settings = AimdSettings(start=4, min=1, max=highest, step=3.0)
    limiters = [Aimd(settings) for _ in range(count)]
    now = 0.0
    for which, served in events:
        now += 1.0
        for rank, limiter in enumerate(limiters):
            limiter.share(rank=rank, count=count, now=now)
        limiter = limiters[which % count]
        if served and limiter.has_room:
            in_flight = limiter.start()
            limiter.finish()
            limiter.on_success(in_flight)
        elif not served:
            limiter.on_overload(now - 0.5, now)
        assert sum(limiter.limit for limiter in limiters) <= highest
        assert limiters[0].limit >= 1, "somebody can always go on"


def test_a_limit_is_divided_again_when_the_number_changes() -> None:
    limiter = Aimd(AimdSettings(start=10, min=1, max=10))
    for rank, count, part in ((0, 3, 4), (2, 3, 3), (1, 2, 5), (0, 1, 10), (9, 10, 1), (10, 11, 0)):
        limiter.share(rank=rank, count=count, now=0.0)
        assert limiter.limit == part
    assert not limiter.has_room


def test_what_was_learned_is_kept_when_the_number_changes() -> None:
    limiter = Aimd(AimdSettings(start=40, min=1, max=100, factor=0.5))
    limiter.share(rank=0, count=2, now=0.0)
    limiter.on_overload(1.0, 2.0)
    assert limiter.limit == 10
    limiter.share(rank=0, count=1, now=3.0)
    assert limiter.limit == 20


def test_shared_limits_grow_as_fast_together_as_one_alone() -> None:
    limiter = Aimd(AimdSettings(start=20, min=1, max=100))
    limiter.share(rank=0, count=2, now=0.0)
    for _ in range(10):
        limiter.start()
    for _ in range(11):
        limiter.on_success(10)
    assert limiter.limit == 11


def test_a_member_without_a_part_tries_again_after_a_while() -> None:
    limiter = Aimd(AimdSettings(start=3, min=1, max=3, factor=0.1))
    limiter.on_overload(1.0, 2.0)
    limiter.share(rank=2, count=3, now=2.0 + NOTHING_SECONDS - 0.1)
    assert limiter.limit == 0
    limiter.share(rank=2, count=3, now=2.0 + NOTHING_SECONDS)
    assert limiter.limit == 1
    limiter.share(rank=3, count=4, now=1_000.0)
    assert limiter.limit == 0, "the highest limit has no part for the fourth"


def test_a_part_is_taken_of_every_endpoint_also_of_new_models() -> None:
    limits = AimdSettings(start=8, min=1, max=8)
    default = Endpoint("upstream", MemoryUpstream(at_once), limits=limits)
    named = Endpoint("named", MemoryUpstream(at_once), limits=limits)
    routes = Routes(by_model={"named": named}, default=default)
    old = default.for_model("old")
    parts: list[list[int]] = []
    for rank in range(3):
        routes.share(rank=rank, count=3, now=0.0)
        found = [named, old, default.for_model(f"new {rank}"), default]
        parts.append([endpoint.limiter.limit for endpoint in found])
    assert [sorted(of_one) for of_one in zip(*parts, strict=True)][:2] == [[2, 3, 3], [2, 3, 3]]
    assert all(part in {2, 3} for of_one in parts for part in of_one)


def test_servers_that_take_one_call_do_not_all_fall_to_the_same_processor() -> None:
    one = AimdSettings(start=1, min=1, max=1)
    names = [f"model-{number}" for number in range(60)]
    fallen: Counter[int] = Counter()
    for name in names:
        having = []
        for rank in range(3):
            endpoint = Endpoint(name, MemoryUpstream(at_once), limits=one)
            endpoint.share(rank=rank, count=3, now=0.0)
            having += [rank] * endpoint.limiter.limit
        assert len(having) == 1, "exactly one of them may call"
        fallen += Counter(having)
    assert min(fallen[rank] for rank in range(3)) >= 10


def test_a_model_seen_later_falls_to_the_same_processor_as_one_seen_before() -> None:
    one = AimdSettings(start=1, min=1, max=1)
    for name in ("a", "m", "other"):
        before = Endpoint("upstream", MemoryUpstream(at_once), limits=one)
        early = before.for_model(name)
        before.share(rank=1, count=2, now=0.0)
        after = Endpoint("upstream", MemoryUpstream(at_once), limits=one)
        after.share(rank=1, count=2, now=0.0)
        assert after.for_model(name).limiter.limit == early.limiter.limit


def test_without_a_part_nothing_is_tried_out_either() -> None:
    endpoint = Endpoint("e", MemoryUpstream(at_once), limits=AimdSettings(start=1, min=1, max=1))
    endpoint.on_fault(reason="away", sent_at=0.0, now=0.0)
    assert endpoint.has_room(1_000.0)
    endpoint.share(rank=1, count=2, now=1_000.0)
    assert not endpoint.has_room(1_000.0)
    assert (endpoint.window, endpoint.has_part) == (0, False)
