"""How models and batches share capacity within the limits, in virtual time."""

import asyncio
from collections import Counter

from typing_extensions import override

from testkit.scenarios.scenario import at_once, lines, now, run_scenario, scenario
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Status
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.processor.settings import Drain, InFlightLimits, Settings
from tidegate.testing.deployment import TENANT, Deployment, model_of, ok, request_line
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream


class _SlowBucket(MemoryBlobs):
    """Blobs that can't grow, and take their time."""

    @override
    async def put(self, name: str, data: bytes) -> None:
        await asyncio.sleep(0.1)
        await super().put(name, data)


@scenario
async def test_a_batch_runs_to_its_end(world: Deployment) -> None:
    async with world.processor(at_once):
        batch = await world.end_of((await world.submit(lines(1_234))).id)
    assert batch.status is Status.COMPLETED
    assert (batch.counts.total, batch.counts.completed) == (1_234, 1_234)
    assert batch.usage.total_tokens == 2 * 1_234
    assert batch.models == ("m",)
    assert len(await world.results(batch)) == 1_234
    assert now() < 5.0, "signals and commits should make this quick"


@scenario
async def test_a_small_batch_ends_at_once(world: Deployment, signals: str) -> None:
    within = {"with_pubsub": 0.3, "without_pubsub": 1.0}[signals]

    async with world.processor(at_once):
        await world.end_of((await world.submit(lines(10))).id)
        assert now() < within


@scenario
async def test_a_slow_model_does_not_hold_up_a_fast_one(world: Deployment) -> None:
    """Two models in one file behind one gateway, one of them 50 times slower."""

    ended: dict[str, float] = {}

    async def answer(call: Call) -> Reply:
        model = model_of(call)
        await asyncio.sleep(0.1 if model == "fast" else 5.0)
        ended[model] = now()
        return ok(model)

    async with world.processor(answer):
        both = await world.submit(lines(400, "slow", "s") + lines(400, "fast", "f"))
        await world.end_of(both.id)
    assert ended["fast"] < ended["slow"] / 10
    assert ended["fast"] < 400 * 0.1 / 16 * 2


@scenario
async def test_a_slow_model_leaves_the_global_limit_to_others(world: Deployment) -> None:
    ended: dict[str, float] = {}

    async def answer(call: Call) -> Reply:
        model = model_of(call)
        await asyncio.sleep(0.1 if model == "fast" else 60.0)
        ended[model] = now()
        return ok(model)

    wide = AimdSettings(start=64, min=1, max=64)
    routes = Routes(default=Endpoint("upstream", MemoryUpstream(answer), limits=wide))
    settings = Settings(limits=InFlightLimits(in_flight_max=16))
    async with world.processor(routes, settings):
        slow = await world.submit(lines(200, "slow", "s"))
        await asyncio.sleep(1.0)
        fast = await world.submit(lines(200, "fast", "f"))
        await world.end_of(fast.id)
        # The slow model held all 16 slots; the fast one gets its half as they fall free.
        assert ended["fast"] < 65.0
        await world.end_of(slow.id)


def test_a_small_batch_passes_a_large_one() -> None:
    """50 lines behind 20,000 take at most twice their time alone, plus 2 s."""

    async def answer(call: Call) -> Reply:
        await asyncio.sleep(1.0)
        return ok(model_of(call))

    times: dict[str, float] = {}

    async def alone(world: Deployment) -> None:
        async with world.processor(answer):
            await world.end_of((await world.submit(lines(50))).id)
            times["alone"] = now()

    async def behind(world: Deployment) -> None:
        async with world.processor(answer):
            large = await world.submit(lines(20_000))
            await asyncio.sleep(20.0)
            started = now()
            await world.end_of((await world.submit(lines(50))).id)
            times["behind"] = now() - started
            assert (await world.get(large.id)).status is Status.IN_PROGRESS
            await world.cancel(large.id)
            await world.end_of(large.id)

    run_scenario(alone)
    run_scenario(behind)
    assert times["behind"] <= 2 * times["alone"] + 2.0, times


@scenario
async def test_with_every_slot_taken_a_new_batch_still_gets_its_turn(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(1.0)
        return ok(model_of(call))

    settings = Settings(limits=InFlightLimits(open_shards_max=2, turn_seconds=5.0))
    async with world.processor(answer, settings):
        large = [await world.submit(lines(3_000, prefix=f"b{n}")) for n in range(2)]
        await asyncio.sleep(3.0)
        small = await world.end_of((await world.submit(lines(20))).id, within_seconds=30.0)
        assert small.counts.completed == 20
        for batch in large:
            await world.cancel(batch.id)
            await world.end_of(batch.id)


@scenario
async def test_never_more_in_flight_than_the_limits_allow(world: Deployment) -> None:
    flying = most = 0

    async def answer(call: Call) -> Reply:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        await asyncio.sleep(1.0)
        flying -= 1
        return ok(model_of(call))

    wide = AimdSettings(start=50, min=1, max=50)
    routes = Routes(default=Endpoint("upstream", MemoryUpstream(answer), limits=wide))
    async with world.processor(routes, Settings(limits=InFlightLimits(in_flight_max=30))):
        await world.end_of((await world.submit(lines(90, "a", "a") + lines(90, "b", "b"))).id)
    assert most == 30


@scenario
async def test_bytes_in_flight_are_bounded_and_a_larger_line_runs_alone(world: Deployment) -> None:
    flying = 0
    alone: list[bool] = []

    async def answer(call: Call) -> Reply:
        nonlocal flying
        flying += len(call.body)
        assert flying <= 100_000 or flying == len(call.body)
        await asyncio.sleep(1.0)
        if len(call.body) > 100_000:
            alone.append(flying == len(call.body))
        flying -= len(call.body)
        return ok()

    data = [request_line(f"{n}", content="x" * 20_000) for n in range(20)]
    data.append(request_line("large", content="x" * 200_000))
    async with world.processor(
        answer, Settings(limits=InFlightLimits(in_flight_bytes_max=100_000))
    ):
        batch = await world.end_of((await world.submit(data)).id)
    assert batch.counts.completed == 21
    assert alone == [True]


@scenario
async def test_a_line_that_takes_longer_than_a_turn_is_sent_once(world: Deployment) -> None:
    sent: Counter[str] = Counter()

    async def answer(call: Call) -> Reply:
        sent[call.headers["x-request-id"]] += 1
        await asyncio.sleep(60.0)
        return ok(model_of(call))

    limits = AimdSettings(start=64, min=1, max=64)
    routes = Routes(default=Endpoint("upstream", MemoryUpstream(answer), limits=limits))
    settings = Settings(drain=Drain(drain_seconds=0.0), limits=InFlightLimits(turn_seconds=1.0))
    async with world.processor(routes, settings):
        batches = [await world.submit(lines(4, prefix=f"b{number}")) for number in range(30)]
        for batch in batches:
            assert (await world.end_of(batch.id)).counts.completed == 4
    assert sorted(sent.values()) == [1] * 120
    # The slots are for 12 batches at a time.
    assert now() < 3 * 60.0 + 5.0


@scenario
async def test_a_shard_that_is_long_in_going_keeps_no_other_from_giving_way(
    world: Deployment,
) -> None:
    seconds = {"hung": 500.0, "long": 20.0, "m": 0.1}

    async def answer(call: Call) -> Reply:
        await asyncio.sleep(seconds[model_of(call)])
        return ok(model_of(call))

    limits = AimdSettings(start=64, min=1, max=64)
    routes = Routes(default=Endpoint("upstream", MemoryUpstream(answer), limits=limits))
    settings = Settings(limits=InFlightLimits(open_shards_max=3))
    async with world.processor(routes, settings):
        await world.submit(lines(1, "hung"))
        for _ in range(2):
            await world.submit(lines(400, "long"))
        await asyncio.sleep(1.0)
        quick = await world.submit(lines(10))
        await world.end_of(quick.id)
        # A turn, the time that the first one has to go, and that in which the next one lands.
        assert now() < 5.0 + 30.0 + 20.0 + 5.0


@scenario
async def test_a_batch_that_gave_way_does_not_take_its_place_again(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(2.0)
        return ok(model_of(call))

    limits = AimdSettings(start=64, min=1, max=64)
    routes = Routes(default=Endpoint("upstream", MemoryUpstream(answer), limits=limits))
    settings = Settings(limits=InFlightLimits(open_shards_max=3))
    async with world.processor(routes, settings):
        for _ in range(3):
            await world.submit(lines(480))
        await asyncio.sleep(1.0)
        small = await world.submit(lines(10))
        await world.end_of(small.id)
        assert now() < 1.0 + 5.0 + 2.0 + 2.0 + 4.0, "a turn, what flies, its lines, and polls"


class Quick:
    """Answers within a millisecond, and knows when it was called."""

    def __init__(self) -> None:
        self.called: list[float] = []

    async def answer(self, call: Call) -> Reply:
        self.called.append(now())
        await asyncio.sleep(0.001)
        return ok()


@scenario
async def test_sending_goes_on_while_results_gather_and_are_committed(world: Deployment) -> None:
    """A commit begins before the limit of uncommitted lines is reached, and makes room."""
    server = Quick()

    wide = AimdSettings(start=64, min=64, max=64)
    routes = Routes(default=Endpoint("upstream", MemoryUpstream(server.answer), limits=wide))
    settings = Settings(limits=InFlightLimits(uncommitted_lines_max=100))
    server.called.clear()
    async with world.processor(routes, settings):
        await world.end_of((await world.submit(lines(3_000))).id)
    needed = 3_000 / 64 * 0.001
    assert server.called[-1] - server.called[0] < 3 * needed, (
        "the limit is filled 30 times, and none of them waits 20 ms"
    )


@scenario
async def test_a_batch_commits_no_line_by_line_while_another_one_writes_much(
    world: Deployment,
) -> None:
    """If each commit is a separate object, there are few commits, even slow ones."""

    async def answer(call: Call) -> Reply:
        await asyncio.sleep(0.02 if model_of(call) == "fast" else 0.1)
        return ok(model_of(call))

    world.blobs = _SlowBucket()
    both = {
        model: Endpoint(
            model, MemoryUpstream(answer), limits=AimdSettings(start=limit, min=limit, max=limit)
        )
        for model, limit in (("fast", 200), ("slow", 8))
    }
    large = await world.submit(lines(4_000, "fast", "f"))
    small = await world.submit(lines(160, "slow", "s"))
    async with world.processor(Routes(by_model=both)):
        await world.end_of(large.id)
        output = (await world.end_of(small.id)).output_file_id
    assert output is not None
    _, parts = await world.store.get_parts(TENANT, output)
    assert len(parts) < 160 / 20, "160 lines, 8 of them in each 0.1 s"


@scenario
async def test_a_commit_that_is_cut_off_makes_no_room_for_more(world: Deployment) -> None:
    """Who is ending sends nothing: a crash would repeat it beside all that waits already."""
    server = Quick()

    server.called.clear()
    settings = Settings(limits=InFlightLimits(in_flight_max=4, uncommitted_lines_max=8))

    async def never(name: str, data: bytes, *, after: int) -> int:
        await asyncio.Event().wait()
        raise AssertionError

    world.blobs.append = never  # type: ignore[method-assign]  # that is the story
    async with world.processor(server.answer, settings):
        await world.submit(lines(100))
        await asyncio.sleep(10.0)
        sent = len(server.called)
        assert 8 <= sent < 12, "the limit is reached, plus what was in flight then"
        (running,) = (task for task in asyncio.all_tasks() if task.get_name() == "processor")
        running.cancel()
        await asyncio.wait([running])
        assert len(server.called) == sent
