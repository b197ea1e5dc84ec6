from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from tidegate.domain.errors import SettingsInvalid
from tidegate.domain.file import Part, Walk, cut, merged
from tidegate.domain.retry import AttemptOutcome, Retry, outcome_of_status
from tidegate.domain.shard import (
    Shard,
    ShardPlan,
    Verdict,
    apply,
    count_done,
    is_done,
    judge,
    no_lines_done,
    with_done,
)
from tidegate.domain.share import Offer, in_order

PARTS = st.lists(
    st.builds(
        Part, blob=st.sampled_from("ab"), offset=st.integers(0, 20), length=st.integers(1, 10)
    ),
    max_size=12,
)


def bytes_of(parts: list[Part]) -> list[tuple[str, int]]:
    return [(p.blob, at) for p in parts for at in range(p.offset, p.offset + p.length)]


@given(parts=PARTS)
def test_merging_parts_changes_no_byte(parts: list[Part]) -> None:
    joined = merged(parts)
    assert bytes_of(joined) == bytes_of(parts)
    assert len(joined) <= len(parts)
    assert merged(joined) == joined


@given(parts=PARTS, start=st.integers(0, 60), length=st.integers(0, 60))
def test_a_cut_is_the_slice_of_the_whole(parts: list[Part], start: int, length: int) -> None:
    assert bytes_of(cut(parts, start, length)) == bytes_of(parts)[start : start + length]


@given(parts=PARTS, data=st.data())
def test_a_walk_takes_the_slice_of_the_whole_in_bounded_steps(
    parts: list[Part], data: st.DataObject
) -> None:
    whole = bytes_of(parts)
    start = data.draw(st.integers(0, len(whole)))
    length = data.draw(st.integers(0, len(whole) - start))
    walk = Walk(parts, start, length)
    taken: list[tuple[str, int]] = []
    while True:
        bytes_max, parts_max = data.draw(st.integers(1, 15)), data.draw(st.integers(1, 3))
        step = walk.take(bytes_max, parts_max)
        if not step:
            break
        assert len(step) <= parts_max
        assert len(bytes_of(step)) <= bytes_max
        assert merged(step) == step
        taken += bytes_of(step)
    assert taken == whole[start : start + length]
    assert walk.take(1, 1) == []


@given(parts=PARTS)
def test_one_step_of_a_walk_may_take_all(parts: list[Part]) -> None:
    whole = bytes_of(parts)
    assert Walk(parts, 0, len(whole)).take(max(1, len(whole)), max(1, len(parts))) == merged(parts)


@given(lines=st.integers(1, 40), data=st.data())
def test_the_bitmap_holds_just_what_was_set(lines: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, lines - 1)))
    bits = with_done(no_lines_done(lines), chosen)
    assert {index for index in range(lines) if is_done(bits, index)} == chosen
    assert count_done(bits) == len(chosen)


def a_shard(lines: int = 3) -> Shard:
    plan = ShardPlan(number=0, model="m", offset=0, length=9, lines=lines)
    return Shard(batch_id="batch_1", plan=plan, done=no_lines_done(lines), epoch=2, sequence=5)


def verdict(shard: Shard, *indexes: int, epoch: int = 2, sequence: int = 5) -> Verdict:
    return judge(shard, epoch=epoch, sequence=sequence, segment_id="s", indexes=indexes)


def test_a_commit_is_judged_by_epoch_sequence_and_bitmap() -> None:
    shard = a_shard()
    assert verdict(shard, 0) is Verdict.ACCEPTED
    assert verdict(shard, 0, epoch=1) is Verdict.STALE
    assert verdict(shard, 0, epoch=3) is Verdict.STALE
    assert verdict(shard, 0, sequence=4) is Verdict.STALE
    assert verdict(replace(shard, ended=True), 0) is Verdict.ENDED
    assert verdict(replace(shard, done=with_done(shard.done, [1])), 0, 1) is Verdict.REPEATED_LINE


def test_a_repeat_gets_the_first_answer_after_any_later_call() -> None:
    shard = replace(a_shard(), epoch=9, last_segment="s", ended=True)
    assert verdict(shard, 0) is Verdict.ACCEPTED


def test_a_shard_ends_with_its_last_line() -> None:
    first = apply(a_shard(), segment_id="a", indexes=(0, 2))
    assert (first.ended, first.sequence, first.last_segment) == (False, 6, "a")
    last = apply(first, segment_id="b", indexes=(1,))
    assert (last.ended, last.sequence) == (True, 7)


@pytest.mark.parametrize("indexes", [(0, 0), (1,), (3,)])
def test_a_commit_that_cannot_be_true_is_a_bug(indexes: tuple[int, ...]) -> None:
    shard = replace(a_shard(), done=with_done(no_lines_done(3), [1]))
    with pytest.raises(AssertionError):
        apply(shard, segment_id="a", indexes=indexes)


@given(
    bounds=st.tuples(st.floats(0.001, 3_600.0), st.floats(0.001, 3_600.0)).map(sorted),
    failures=st.integers(1, 10_000),
    chance=st.floats(0.0, 1.0),
)
def test_a_delay_is_bounded_and_grows(bounds: list[float], failures: int, chance: float) -> None:
    least, most = bounds
    retry = Retry(delay_seconds_min=least, delay_seconds_max=most)
    longest = retry.delay(failures, 1.0)
    assert least <= longest <= most
    assert longest == min(most, least * 2.0 ** min(failures - 1, 32))
    assert longest / 2 <= retry.delay(failures, chance) <= longest, "jitter is its upper half"
    assert retry.delay(failures, chance) <= retry.delay(failures + 1, chance)


@pytest.mark.parametrize(
    "wrong",
    [
        {"attempts_max": 0},
        {"attempts_max": 6, "unsure_max": 5},
        {"delay_seconds_min": 0.0},
        {"delay_seconds_min": 31.0},
    ],
)
def test_impossible_retries_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(SettingsInvalid):
        Retry(**wrong)  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize(
    ("outcome", "statuses"),
    [
        (AttemptOutcome.OK, [200, 201, 204, 400, 404, 405, 409, 413, 418, 422, 451]),
        (AttemptOutcome.LINE_ERROR, [408, 425, 500, 501, 505, 599]),
        (AttemptOutcome.ENDPOINT_ERROR, [301, 302, 307, 401, 403, 407, 429, 502, 503, 504, 529]),
    ],
)
def test_whose_fault_a_status_is(outcome: AttemptOutcome, statuses: list[int]) -> None:
    found = {status: outcome_of_status(status) for status in statuses}
    assert found == dict.fromkeys(statuses, outcome)


def offer(
    name: str, *, tenant: str = "a", lines: int = 0, all_lines: int = 0, age: float = 0.0
) -> Offer:
    return Offer(
        batch_id=name,
        tenant=tenant,
        model="m",
        created_at=-age,
        expires_at=1e9,
        shards=1,
        claimed_lines=lines,
        tenant_lines=max(lines, all_lines),
        ending=False,
    )


def order(*offers: Offer, weights: dict[str, float] | None = None) -> list[str]:
    return [found.batch_id for found in in_order(offers, weights)]


def test_the_tenant_with_least_at_work_comes_first_then_the_batch_then_age() -> None:
    many = offer("many", lines=900, all_lines=1000)
    few = offer("few", lines=100, all_lines=1000, age=1)
    old, young = offer("old", tenant="b", lines=300, age=9), offer("young", tenant="b", lines=300)
    assert order(many, few, young, old) == ["old", "young", "few", "many"]


def test_batches_that_offer_nothing_count_for_their_tenant() -> None:
    greedy, modest = offer("greedy", all_lines=500, age=9), offer("modest", tenant="b", lines=400)
    assert order(greedy, modest) == ["modest", "greedy"]


def test_a_tenant_with_more_weight_may_have_more_at_work() -> None:
    heavy, light = offer("heavy", tenant="h", lines=300), offer("light", tenant="l", lines=200)
    assert order(heavy, light) == ["light", "heavy"]
    assert order(heavy, light, weights={"h": 2.0}) == ["heavy", "light"]


def test_what_only_has_to_be_ended_comes_before_all() -> None:
    ending = replace(offer("ending", lines=10_000), ending=True)
    assert order(offer("idle", age=99), ending) == ["ending", "idle"]
