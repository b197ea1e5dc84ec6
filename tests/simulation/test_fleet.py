"""A fleet in virtual time: queues as theory has them, hours in seconds, the same again by seed."""

import asyncio
import random
from array import array
from collections.abc import Callable, Coroutine, Iterator
from itertools import islice
from pathlib import Path

import pytest

from testkit.fleet import arrivals
from testkit.fleet.engines import EngineUpstream, Fleet, LoopEngine, Served, shared_prompts
from testkit.scenarios.scenario import lines, now, scenario
from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.presets import preset
from tidegate.simulator.engine.sequence import Request
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.testing.deployment import Deployment, model_of, ok
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply

SMALL = EngineSettings(
    kv_blocks=64, block_size=16, max_num_seqs=8, max_num_batched_tokens=64, max_model_len=512
)
COST = preset("llama-8b-h100").cost


def live(story: Callable[[], Coroutine[None, None, list[Served]]]) -> list[Served]:
    return run_virtual(story())


async def one_server(times: Iterator[float], make: Callable[[int], Request]) -> list[Served]:
    """One engine that runs one request at a time, each for as long as its tokens say."""
    size = EngineSettings(
        kv_blocks=64,
        block_size=128,
        max_num_seqs=1,
        max_num_batched_tokens=128,
        max_model_len=8_000,
        prefix_caching=False,
    )
    cost = Cost(fixed_ps=10_000_000_000, prefill_token_ps=0, decode_seq_ps=0, context_token_ps=0)
    engine = LoopEngine("only", size, cost)
    fleet = Fleet([engine])
    await fleet.run(times, make)
    await fleet.drained()
    return fleet.served


def test_the_queue_before_one_server_is_the_one_of_theory() -> None:
    """M/D/1: with constant service S the mean wait is rho S / (2 (1 - rho)) (Pollaczek, 1930)."""
    service, load, count = 0.5, 0.6, 20_000
    rng = random.Random(11)
    times = islice(arrivals.poisson(load / service, rng), count)
    request = array("I", [1])

    def make(number: int) -> Request:
        return Request(key=str(number), prompt=request, output_tokens=50)

    served = live(lambda: one_server(times, make))
    waited = sum(each.queued for each in served) / count
    expected = load * service / (2 * (1 - load))
    assert len(served) == count
    assert waited == pytest.approx(expected, rel=0.1)


def test_a_seed_gives_the_same_story_again() -> None:
    async def story() -> list[Served]:
        rng = random.Random(5)
        fleet = Fleet([LoopEngine(f"engine-{n}", SMALL, COST, seed=1) for n in range(3)])
        make = shared_prompts(rng, groups=4, shared_tokens=48, own_tokens=20, output_tokens=60)
        times = arrivals.until(arrivals.bursts(12.0, rng, size=5, spread_seconds=0.2), 20.0)
        await fleet.run(times, make)
        await fleet.drained()
        return fleet.served

    first, second = live(story), live(story)
    assert first == second
    assert len(first) > 100
    assert any(served.preemptions for served in first), "the blocks are too many to show much"
    assert any(served.cached_tokens for served in first)


def test_clients_that_leave_free_everything() -> None:
    async def story() -> list[Served]:
        engine = LoopEngine("engine", SMALL, COST)
        request = Request(key="a", prompt=array("I", range(100)), output_tokens=400)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(engine.ask(request), name="client") for _ in range(20)]
            await asyncio.sleep(1.0)
            assert engine.engine.pool.held > 0
            for task in tasks:
                task.cancel()
        assert engine.load == 0
        assert engine.engine.pool.held == 0
        await asyncio.sleep(1.0)
        assert engine.engine.next_ps is None, "a step that nobody is in goes on"
        return engine.served

    assert live(story) == []


def test_closed_clients_ask_one_after_the_other() -> None:
    async def story() -> list[Served]:
        fleet = Fleet([LoopEngine("engine", SMALL, COST)])
        make = shared_prompts(
            random.Random(1), groups=1, shared_tokens=32, own_tokens=8, output_tokens=10
        )
        await fleet.clients(4, make, requests=40)
        return fleet.served

    served = live(story)
    assert len(served) == 40
    for each in served:
        others = [o for o in served if o.arrived <= each.arrived < o.finished]
        assert len(others) <= 4


@scenario
async def test_a_batch_runs_on_a_simulated_engine(deployment: Deployment) -> None:
    """The processor has an engine in virtual time for its model server, and knows no difference."""

    engine = LoopEngine("engine", SMALL, COST)
    upstream = EngineUpstream(engine, output_tokens=20)

    async def answer(call: Call) -> Reply:
        assert ok(model_of(call)).status == 200
        return await upstream.send(call)

    async with deployment.processor(answer):
        batch = await deployment.submit(lines(200))
        ended = await deployment.end_of(batch.id)
    assert (ended.counts.completed, ended.counts.failed) == (200, 0)
    assert ended.usage.output_tokens == 200 * 20
    assert now() > 200 * 20 * 0.008 / 64, "it took no time"


def test_arrivals_come_as_often_as_asked() -> None:
    rng = random.Random(2)
    assert len(list(arrivals.until(arrivals.poisson(50.0, rng), 100.0))) == pytest.approx(
        5_000, rel=0.1
    )
    bursts = list(arrivals.until(arrivals.bursts(1.0, rng, size=7, spread_seconds=3.0), 500.0))
    assert bursts == sorted(bursts)
    assert len(bursts) == pytest.approx(3_500, rel=0.2)


def test_a_tide_is_high_in_the_afternoon_and_low_at_night() -> None:
    times = list(arrivals.until(arrivals.tide(0.2, random.Random(3)), arrivals.DAY_SECONDS))
    by_hour = [0] * 24
    for time in times:
        by_hour[int(time // 3_600)] += 1
    assert len(times) == pytest.approx(0.2 * arrivals.DAY_SECONDS, rel=0.1)
    assert by_hour[14] > 5 * by_hour[2]


def test_a_trace_is_read_in_order_of_time(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("at,prompt_tokens,output_tokens\n2.5,10,20\n0.5,30,40\n")
    found = arrivals.read_trace(path)
    assert [(each.at, each.prompt_tokens) for each in found] == [(0.5, 30), (2.5, 10)]


@pytest.mark.parametrize(
    "content", ["at,prompt_tokens\n1,2\n", "at,prompt_tokens,output_tokens\n-1,1,1\n",
                "at,prompt_tokens,output_tokens\nsoon,1,1\n"],
)  # fmt: skip
def test_a_trace_with_a_bad_line_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(SettingsInvalid, match="Line 2 of the trace"):
        arrivals.read_trace(path)


def test_a_trace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="can't be read"):
        arrivals.read_trace(tmp_path / "none.csv")
