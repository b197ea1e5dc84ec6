"""How a batch ends early, and how a processor does, in virtual time."""

import asyncio
from collections import Counter

import pytest

from testkit.scenarios.scenario import at_once, lines, now, scenario
from tidegate.domain.batch import Status
from tidegate.domain.errors import Conflict
from tidegate.processor.settings import Claims, Drain, Settings
from tidegate.testing.deployment import Deployment, ok
from tidegate.upstreams.base import Call, Reply


@scenario
async def test_cancel_keeps_what_came_back_and_ends_the_rest(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(2.0)
        return ok()

    async with world.processor(answer):
        batch = await world.submit(lines(1_200))
        await asyncio.sleep(5.0)
        assert (await world.cancel(batch.id)).status is Status.CANCELLING
        asked = now()
        ended = await world.end_of(batch.id)
        assert now() - asked < 4.0
    assert ended.status is Status.CANCELLED
    assert ended.counts.completed + ended.counts.failed == 1_200
    # Two whole windows had landed, and the third was in flight and may land.
    assert ended.counts.completed >= 3 * 16
    found = await world.results(ended)
    assert len(found) == 1_200
    codes = Counter(line.error.code for line in found.values() if line.error)
    assert codes == {"batch_cancelled": ended.counts.failed}


@scenario
async def test_a_line_that_does_not_land_in_time_is_cut_at_cancel(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(10_000.0)
        return ok()

    async with world.processor(answer, Settings(drain=Drain(drain_seconds=30.0))):
        batch = await world.submit(lines(40))
        await asyncio.sleep(1.0)
        await world.cancel(batch.id)
        ended = await world.end_of(batch.id)
        assert 30.0 <= now() < 33.0
    assert (ended.status, ended.counts.failed) == (Status.CANCELLED, 40)


@scenario
async def test_cancel_before_planning_has_no_lines_and_no_files(world: Deployment) -> None:
    batch = await world.submit(lines(10))
    await world.cancel(batch.id)
    async with world.processor(at_once):
        ended = await world.end_of(batch.id)
    assert (ended.status, ended.counts.total) == (Status.CANCELLED, 0)
    assert (ended.output_bytes, ended.error_bytes) == (0, 0)


@scenario
async def test_cancel_of_what_has_ended_is_refused_and_of_what_is_cancelled_is_not(
    world: Deployment,
) -> None:
    async with world.processor(at_once):
        done = await world.end_of((await world.submit(lines(1))).id)
        with pytest.raises(Conflict, match="Cannot cancel a batch with status 'completed'"):
            await world.cancel(done.id)
    other = await world.submit(lines(1))
    await world.cancel(other.id)
    async with world.processor(at_once):
        await world.end_of(other.id)
    assert (await world.cancel(other.id)).status is Status.CANCELLED


@scenario
async def test_the_window_closes_on_a_running_batch(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(10.0)
        return ok()

    async with world.processor(answer):
        batch = await world.end_of((await world.submit(lines(600), window_seconds=60)).id)
    assert batch.status is Status.EXPIRED
    assert batch.counts.completed >= 16 * 6
    assert batch.counts.expired == batch.counts.failed == 600 - batch.counts.completed
    assert now() < 75.0


@scenario
async def test_a_window_that_closes_before_planning_leaves_nothing(world: Deployment) -> None:
    batch = await world.submit(lines(3), window_seconds=60)
    await asyncio.sleep(61.0)
    async with world.processor(at_once):
        ended = await world.end_of(batch.id)
    assert (ended.status, ended.counts.total) == (Status.EXPIRED, 0)


@scenario
async def test_stop_lets_lines_land_and_hands_the_rest_to_another_processor(
    world: Deployment,
) -> None:
    sent: Counter[str] = Counter()

    async def answer(call: Call) -> Reply:
        sent[call.headers["x-request-id"]] += 1
        await asyncio.sleep(3.0)
        return ok()

    async with world.processor(answer):
        batch = await world.submit(lines(200))
        await asyncio.sleep(4.0)
    stopped = now()
    assert stopped < 8.0, "what was in flight needed three seconds"
    async with world.processor(answer):
        await asyncio.sleep(0.5)
        assert len(sent) > 32, "the second processor went on at once"
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 200
    assert set(sent.values()) == {1}, "no line was sent twice"


@scenario
async def test_abort_cuts_what_flies_and_keeps_what_is_done(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(1.0 if now() < 2.0 else 10_000.0)
        return ok()

    async with world.processor(answer) as processor:
        batch = await world.submit(lines(100))
        await asyncio.sleep(5.0)
        processor.abort()
    assert now() < 6.0
    assert (await world.get(batch.id)).counts.completed >= 16


@scenario
async def test_a_processor_may_be_stopped_before_it_runs_and_twice(world: Deployment) -> None:
    async with world.processor(at_once) as processor:
        processor.stop()
        processor.stop()
        processor.abort()


@scenario
async def test_a_dead_processor_is_replaced_within_its_lease(world: Deployment) -> None:
    async def hang(call: Call) -> Reply:
        await asyncio.sleep(10_000.0)
        return ok()

    settings = Settings(claims=Claims(lease_seconds=15.0))
    async with asyncio.TaskGroup() as group:

        async def dies() -> None:
            async with world.processor(hang, settings):
                await asyncio.sleep(10_000.0)

        first = group.create_task(dies())
        batch = await world.submit(lines(20))
        await asyncio.sleep(5.0)
        first.cancel()
    died = now()
    async with world.processor(at_once, settings):
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 20
    assert now() - died < 15.0 + 2.5 * settings.claims.poll_seconds
