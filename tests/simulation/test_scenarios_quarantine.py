"""A shard in quarantine is a shard like others: it ends, stops, waits and leaves others alone."""

import asyncio
from collections import Counter

import pytest

from testkit.scenarios.quarantine import Answer, MemorySandboxes, lose_twice
from testkit.scenarios.scenario import at_once, fails, lines, now, scenario
from tidegate.domain.batch import Status
from tidegate.domain.errors import (
    ClaimLost,
    ReplyBroken,
    SandboxDied,
    SandboxNotStarted,
    StorageBroken,
    StoreUnavailable,
)
from tidegate.domain.ledger.values import Want
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.planning.settings import Planning
from tidegate.processor.settings import SandboxLimits as CellSettings, Settings
from tidegate.testing.deployment import Deployment, ok, request_line
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

SHARDS_OF_TEN = Planning(shard_lines_max=10)


async def forbidden(call: Call) -> Reply:
    raise AssertionError(f"{call} was sent from the processor itself")


def alone(sandbox: MemorySandboxes) -> Routes:
    """Return routes to an endpoint that may be reached through these cells only."""
    return Routes(default=Endpoint("e", MemoryUpstream(forbidden), open_sandbox=sandbox))


async def lost_batch(world: Deployment, count: int, **named: float) -> str:
    """Return a batch of which every shard is in quarantine."""
    batch = await world.submit(lines(count), **named)
    await lose_twice(world, batch.id)
    return batch.id


def takes(seconds: float) -> Answer:
    async def answer(_: Call) -> Reply:
        await asyncio.sleep(seconds)
        return ok()

    return answer


@scenario
async def test_each_line_is_recorded_before_it_is_sent_and_goes_alone(world: Deployment) -> None:
    batch_id = await lost_batch(world, 20)
    under_way = 0

    async def answer(call: Call) -> Reply:
        nonlocal under_way
        under_way += 1
        assert under_way == 1, "two lines of a shard at once"
        (shard,) = await world.store.get_shards(batch_id)
        number = int(call.headers["x-request-id"].rpartition("_")[2])
        assert shard.suspect == number - 1
        await asyncio.sleep(0.1)
        under_way -= 1
        return ok()

    sandbox = MemorySandboxes(answer)
    async with world.processor(alone(sandbox)):
        batch = await world.end_of(batch_id)
    assert batch.counts.completed == 20
    assert (len(sandbox.calls), sandbox.open, sandbox.open_max_seen) == (20, 0, 1)


@pytest.mark.parametrize("count", [1, 4])
@scenario
async def test_sandboxes_are_bounded_and_sound_shards_do_not_wait_for_them(
    world: Deployment, count: int
) -> None:
    settings = Settings(planning=SHARDS_OF_TEN, sandbox=CellSettings(count_max=count))
    slow_id = (await world.submit(lines(100))).id
    await lose_many(world, slow_id, settings, shards=1_000)
    sandbox = MemorySandboxes(takes(5.0))
    routes = Routes(default=Endpoint("e", MemoryUpstream(at_once), open_sandbox=sandbox))
    async with world.processor(routes, settings):
        await asyncio.sleep(3.0)
        since = now()
        quick = await world.end_of((await world.submit(lines(200, prefix="quick"))).id)
        assert now() - since < 5.0
        assert (await world.get(slow_id)).counts.completed < 20
        slow = await world.end_of(slow_id)
    assert (quick.counts.completed, slow.counts.completed) == (200, 100)
    assert (sandbox.open_max_seen, sandbox.open) == (count, 0)
    # Ten shards of 50 s each, `count` of them in parallel, and a short wait for a free sandbox.
    assert now() - since < (10 / count + 1) * (50.0 + 5.0)


async def lose_many(world: Deployment, batch_id: str, settings: Settings, *, shards: int) -> None:
    """Let the first shards of a batch be lost by holders that vanish; it is planned first."""

    async def never(_: Call) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    async with world.processor(never, settings) as processor:
        while not (await world.get(batch_id)).is_planned:  # noqa: ASYNC110 - virtual time passes
            await asyncio.sleep(0.1)
        processor.abort()
    want = Want(batch_id=batch_id, model="m", limit=shards)
    for number in range(3):
        assert await world.store.claim_shards(f"ghost-{number}", [want], lease_seconds=1.0)
        await asyncio.sleep(1.5)


@scenario
async def test_in_one_batch_sound_shards_go_on_beside_one_in_quarantine(world: Deployment) -> None:
    settings = Settings(planning=Planning(shard_lines_max=100))
    batch = await world.submit(lines(400))
    await lose_many(world, batch.id, settings, shards=1)
    shards = await world.store.get_shards(batch.id)
    assert [shard.crashes > 0 for shard in shards] == [True, False, False, False]
    sandbox = MemorySandboxes(takes(10.0))
    routes = Routes(default=Endpoint("e", MemoryUpstream(takes(1.0)), open_sandbox=sandbox))
    async with world.processor(routes, settings):
        # Three hundred lines, sixteen and more at a time.
        await asyncio.sleep(25.0)
        assert 300 <= (await world.get(batch.id)).counts.completed < 305
        await world.cancel(batch.id)
        await world.end_of(batch.id)


@scenario
async def test_a_small_batch_gets_a_sandbox_though_a_large_one_holds_them_all(
    world: Deployment,
) -> None:
    settings = Settings(planning=SHARDS_OF_TEN, sandbox=CellSettings(count_max=2))
    large, small = await world.submit(lines(200)), await world.submit(lines(3, prefix="few"))
    await lose_many(world, large.id, settings, shards=1_000)
    await lose_many(world, small.id, settings, shards=1_000)
    want = Want(batch_id=small.id, model="m", limit=1)
    (held,) = await world.store.claim_shards("before", [want], lease_seconds=1.0)
    await world.store.hand_back([held.shards[0].claim], wait_seconds=20.0)
    sandbox = MemorySandboxes(takes(5.0))
    async with world.processor(alone(sandbox), settings):
        await asyncio.sleep(19.0)
        assert sandbox.open == 2
        assert (await world.get(small.id)).counts.completed == 0
        # A shard has its turn of 5 s, its line lands, and three lines of 5 s follow.
        await world.end_of(small.id, within_seconds=45.0)
        ended = await world.end_of(large.id)
    assert ended.counts.completed == 200
    assert sandbox.open_max_seen == 2


@scenario
async def test_one_accident_of_each_child_blames_no_line(world: Deployment) -> None:
    batch_id = await lost_batch(world, 20)
    seen: Counter[str] = Counter()

    async def answer(call: Call) -> Reply:
        seen[call.headers["x-request-id"]] += 1
        if seen[call.headers["x-request-id"]] == 1:
            raise SandboxDied("taken by the kernel")
        return ok()

    sandbox = MemorySandboxes(answer)
    async with world.processor(alone(sandbox)):
        batch = await world.end_of(batch_id)
    assert (batch.counts.completed, sandbox.deaths) == (20, 20)


@pytest.mark.parametrize("drains", [True, False])
@scenario
async def test_a_cancel_ends_a_shard_in_quarantine(world: Deployment, *, drains: bool) -> None:
    batch_id = await lost_batch(world, 20)
    sandbox = MemorySandboxes(takes(1.0 if drains else 10_000.0))
    async with world.processor(alone(sandbox)):
        await asyncio.sleep(4.5)
        await world.cancel(batch_id)
        since = now()
        batch = await world.end_of(batch_id)
        assert now() - since < (2.0 if drains else 31.0)
    assert batch.status is Status.CANCELLED
    assert (batch.counts.completed > 0) == drains
    codes = Counter(r.error.code for r in (await world.results(batch)).values() if r.error)
    assert set(codes) == {"batch_cancelled"}
    assert sandbox.open == 0


@scenario
async def test_the_window_closes_over_a_shard_in_quarantine(world: Deployment) -> None:
    batch_id = await lost_batch(world, 50, window_seconds=60.0)
    async with world.processor(alone(MemorySandboxes(takes(5.0)))):
        batch = await world.end_of(batch_id)
    assert batch.status is Status.EXPIRED
    assert batch.counts.completed > 0
    assert batch.counts.expired == 50 - batch.counts.completed


@pytest.mark.parametrize("with_grace", [True, False])
@scenario
async def test_a_stop_hands_a_shard_in_quarantine_back_at_once(
    world: Deployment, *, with_grace: bool
) -> None:
    batch_id = await lost_batch(world, 10)
    first, second = MemorySandboxes(takes(2.0)), MemorySandboxes(takes(0.1))
    async with world.processor(alone(first)) as processor:
        await asyncio.sleep(3.5)
        (before,) = await world.store.get_shards(batch_id)
        if with_grace:
            processor.stop()
        else:
            processor.abort()
    assert first.open == 0
    since = now()
    async with world.processor(alone(second)):
        batch = await world.end_of(batch_id)
    assert now() - since < 3.0, "nobody waited for a claim to expire"
    assert batch.counts.completed == 10
    assert await counted(world, batch_id) == Counter()
    (after,) = await world.store.get_shards(batch_id)
    assert after.crashes == before.crashes, "a hand-back is no crash"
    assert len(first.calls) + len(second.calls) == (10 if with_grace else 11)


async def counted(world: Deployment, batch_id: str) -> Counter[str]:
    found = await world.results(await world.get(batch_id))
    return Counter(line.error.code for line in found.values() if line.error is not None)


@scenario
async def test_deaths_under_an_earlier_holder_count(world: Deployment) -> None:
    batch_id = await lost_batch(world, 5)
    (shard,) = await world.store.get_shards(batch_id)
    want = Want(batch_id=batch_id, model=shard.plan.model, limit=1)
    for index, deaths in ((3, DEATHS_TO_BLAME), (1, DEATHS_TO_BLAME - 1)):
        (held,) = await world.store.claim_shards("before", [want], lease_seconds=5.0)
        for _ in range(deaths):
            await world.store.record_suspect(held.shards[0].claim, index)
            await world.store.record_sandbox_death(held.shards[0].claim, index)
        await world.store.hand_back([held.shards[0].claim])
    (held,) = await world.store.claim_shards("before", [want], lease_seconds=5.0)
    await world.store.record_suspect(held.shards[0].claim, 0)
    await asyncio.sleep(6.0)

    sandbox = MemorySandboxes(takes(0.1))
    async with world.processor(alone(sandbox)):
        batch = await world.end_of(batch_id)
    found = await world.results(batch)
    assert {name for name, line in found.items() if line.error} == {"line-3"}
    error = found["line-3"].error
    assert error is not None
    assert error.code == "processor_crashed"
    assert error.message.endswith(f"died of it {DEATHS_TO_BLAME} times; it is not tried again.")
    # Suspected lines are sent last; a suspicion of a dead holder does not count against a line.
    order = [int(call.headers["x-request-id"].rpartition("_")[2]) - 1 for call in sandbox.calls]
    assert order == [2, 4, 0, 1]


@scenario
async def test_an_answer_that_is_lost_is_asked_for_again(world: Deployment) -> None:
    batch_id = await lost_batch(world, 5)
    since = now()
    fails(world.store, "record_suspect", StoreUnavailable("away"), until=since + 10.0)
    fails(
        world.store,
        "record_sandbox_death",
        StoreUnavailable("away"),
        since=since,
        until=since + 20.0,
    )

    async def answer(call: Call) -> Reply:
        if call.headers["x-request-id"].endswith("_3"):
            raise SandboxDied("gone")
        return ok()

    sandbox = MemorySandboxes(answer)
    async with world.processor(alone(sandbox)):
        batch = await world.end_of(batch_id)
    assert await counted(world, batch_id) == {"processor_crashed": 1}
    assert (batch.counts.completed, sandbox.deaths) == (4, DEATHS_TO_BLAME)


@scenario
async def test_a_ledger_that_loses_what_it_wrote_ends_the_processor_and_its_sandboxes(
    world: Deployment,
) -> None:
    await lost_batch(world, 5)
    fails(world.store, "record_suspect", StorageBroken("a flush failed"))
    sandbox = MemorySandboxes(takes(0.1))
    with pytest.raises(BaseExceptionGroup) as caught:
        async with world.processor(alone(sandbox)):
            await asyncio.Event().wait()
    assert caught.value.subgroup(StorageBroken) is not None
    assert (sandbox.calls, sandbox.open) == ([], 0)


@pytest.mark.parametrize("verb", ["record_suspect", "record_sandbox_death"])
@scenario
async def test_a_shard_that_is_anothers_by_now_is_dropped(world: Deployment, verb: str) -> None:
    batch_id = await lost_batch(world, 5)
    fails(world.store, verb, ClaimLost("another holds it"), until=now() + 2.0)

    async def answer(_: Call) -> Reply:
        await asyncio.sleep(0.1)
        if now() < until:
            raise SandboxDied("gone")
        return ok()

    until = now() + 2.0
    sandbox = MemorySandboxes(answer)
    async with world.processor(alone(sandbox)):
        batch = await world.end_of(batch_id)
    assert batch.counts.completed == 5
    assert len(sandbox.calls) == (5 if verb == "record_suspect" else 6)
    assert sandbox.open == 0


@scenario
async def test_a_child_that_does_not_start_blames_no_line_and_is_tried_ever_less_often(
    world: Deployment,
) -> None:
    batch_id = await lost_batch(world, 20)
    since = now()

    async def answer(_: Call) -> Reply:
        if now() < since + 600.0:
            raise SandboxNotStarted("No room for a process.")
        return ok()

    sandbox = MemorySandboxes(answer)
    async with world.processor(alone(sandbox)):
        batch = await world.end_of(batch_id)
    assert batch.counts.completed == 20
    assert 20 < len(sandbox.calls) < 20 + 60
    assert sandbox.deaths == 0


@scenario
async def test_pauses_of_the_endpoint_apply_to_sandboxes(world: Deployment) -> None:
    batch_id = await lost_batch(world, 10)
    since = now()

    async def answer(_: Call) -> Reply:
        if now() < since + 100.0:
            return Reply(status=503, headers={"retry-after": "20"}, body=b"")
        return ok()

    sandbox = MemorySandboxes(answer)
    async with world.processor(alone(sandbox)):
        await asyncio.sleep(30.0)
        waiting = (await world.get(batch_id)).waiting_for
        assert waiting is not None
        assert "503" in waiting
        batch = await world.end_of(batch_id)
    assert batch.counts.completed == 10
    assert len(sandbox.calls) <= 10 + 6


@scenario
async def test_a_line_that_fails_by_itself_has_its_tries_in_quarantine_too(
    world: Deployment,
) -> None:
    batch = await world.submit([*lines(3), request_line("bad", content="poison")])
    await lose_twice(world, batch.id)
    tries: Counter[str] = Counter()

    async def answer(call: Call) -> Reply:
        tries[call.headers["x-request-id"]] += 1
        await asyncio.sleep(0.1)
        if b"poison" in call.body:
            return Reply(status=500, headers={}, body=b"{}")
        if tries.total() == 1:
            raise ReplyBroken("It broke off.")
        return ok()

    async with world.processor(alone(MemorySandboxes(answer))):
        ended = await world.end_of(batch.id)
    assert (ended.counts.completed, ended.counts.failed) == (3, 1)
    assert max(tries.values()) == 5
