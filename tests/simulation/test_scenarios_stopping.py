"""Stopping is not dying: what is in flight lands, and another processor goes on at once."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from testkit.scenarios.scenario import at_once, fails, lines, meets, now, scenario
from tidegate.blobs.base import BlobStore
from tidegate.domain.batch import Status
from tidegate.domain.errors import StorageFull
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.planning.settings import Planning
from tidegate.processor.settings import Claims, Drain, Settings
from tidegate.testing.contract.stores import list_offers
from tidegate.testing.deployment import Deployment, model_of, ok
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

LEASE_SECONDS = 1_000.0
SETTINGS = Settings(
    claims=Claims(lease_seconds=LEASE_SECONDS),
    planning=Planning(shard_lines_max=20),
    drain=Drain(stop_grace_seconds=10.0),
)


class Server:
    """Takes two seconds for each call, and counts them by line."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.seconds = 2.0

    async def answer(self, call: Call) -> Reply:
        self.calls[call.headers["x-request-id"]] += 1
        await asyncio.sleep(self.seconds)
        return ok(model_of(call))


def slow_to_read(blobs: BlobStore, *, until: float) -> None:
    """Let every read take 100 seconds for a while, so that planning does not come to its end."""
    read = blobs.read

    async def reading(name: str, offset: int, length: int) -> bytes:
        if now() < until:
            await asyncio.sleep(100.0)
        return await read(name, offset, length)

    blobs.read = reading  # type: ignore[method-assign]  # that is the story


async def generation(world: Deployment, server: Server, seconds: float) -> None:
    """Run one processor for a while, then stop it as a restart does."""
    async with world.processor(server.answer, SETTINGS):
        await asyncio.sleep(seconds)


@scenario
async def test_a_hand_back_that_is_asked_for_again_and_again_lets_no_other_claim_expire(
    world: Deployment,
) -> None:
    server = Server()
    server.seconds = 120.0
    settings = Settings(planning=Planning(shard_lines_max=1), drain=Drain(stop_grace_seconds=300.0))
    limits = AimdSettings(start=1, min=1, max=1)
    routes = Routes(default=Endpoint("one", MemoryUpstream(server.answer), limits=limits))
    fails(world.store, "hand_back", StorageFull("full"), until=100.0)
    async with world.processor(routes, settings) as processor:
        batch = await world.submit(lines(2))
        await asyncio.sleep(1.0)
        processor.stop()
        await asyncio.sleep(94.0)
        offered = await list_offers(world.store)
        assert not offered, "nothing is handed back, and what flies is held"
    assert server.calls.total() == 1
    assert (await world.get(batch.id)).counts.completed == 1


@scenario
async def test_a_rolling_restart_under_load_fails_and_repeats_nothing(world: Deployment) -> None:
    server = Server()
    batches = [await world.submit(lines(300, prefix=f"b{number}")) for number in range(3)]

    async def place(number: int) -> None:
        await asyncio.sleep(3.0 * number)
        for _ in range(5):
            await generation(world, server, 7.3)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(place(number))
        async with asyncio.timeout(40.0):
            await asyncio.sleep(35.0)
    async with world.processor(server.answer, SETTINGS):
        ended = [await world.end_of(batch.id) for batch in batches]
    assert [batch.status for batch in ended] == [Status.COMPLETED] * 3
    assert [batch.counts.failed for batch in ended] == [0] * 3
    assert sum(server.calls.values()) == len(server.calls) == 900
    assert await world.store.list_members() == ()
    for batch in ended:
        assert len(await world.results(batch)) == 300


@scenario
async def test_a_stop_in_the_midst_of_planning_hands_it_on_at_once(world: Deployment) -> None:
    server = Server()
    batch = await world.submit(lines(40))
    slow_to_read(world.blobs, until=11.0)
    async with world.processor(server.answer, SETTINGS):
        await asyncio.sleep(1.0)
    assert now() == pytest.approx(11.0, abs=0.3), "planning has the grace time, and no more"
    assert (await world.get(batch.id)).status is Status.VALIDATING
    async with world.processor(server.answer, SETTINGS):
        await asyncio.sleep(0.5)
        assert (await world.get(batch.id)).status is Status.IN_PROGRESS
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 40
    assert set(server.calls.values()) == {1}


@pytest.mark.parametrize("verb", ["claim_planning", "claim_shards", "claim_finalizing"])
@scenario
async def test_what_is_granted_in_the_midst_of_a_stop_is_handed_back(
    world: Deployment, verb: str
) -> None:
    server = Server()
    stopped = asyncio.Event()
    async with world.processor(server.answer, SETTINGS) as first:
        batch = await world.submit(lines(40))

        def stop() -> None:
            first.stop()
            stopped.set()

        granted(world, verb, stop)
        async with asyncio.timeout(60.0):
            await stopped.wait()
    sent = sum(server.calls.values())
    assert (sent > 0) == (verb == "claim_finalizing")
    handed = now()
    async with world.processor(server.answer, SETTINGS):
        ended = await world.end_of(batch.id, within_seconds=60.0)
    assert now() - handed < 10.0, "nobody waits for the lease of one that stopped"
    assert ended.counts.completed == 40
    assert set(server.calls.values()) == {1}


def granted(world: Deployment, verb: str, then: Callable[[], None]) -> None:
    """Call `then` once, while the answer that grants something is on its way."""
    method = getattr(world.store, verb)
    waiting = [then]

    async def granting(*arguments: object, **named: object) -> object:
        answer = await method(*arguments, **named)
        if answer and waiting:
            waiting.pop()()
        return answer

    setattr(world.store, verb, granting)


@scenario
async def test_a_stop_in_the_midst_of_closing_the_books_closes_them(world: Deployment) -> None:
    async with world.processor(at_once, SETTINGS) as processor:
        meets(world.store, "finish_batch", processor.stop)
        batch = await world.submit(lines(3))
        await asyncio.sleep(5.0)
    assert (await world.get(batch.id)).status is Status.COMPLETED
    assert now() == pytest.approx(5.0, abs=0.5)


@scenario
async def test_an_abort_commits_what_came_back_and_another_runs_only_the_rest(
    world: Deployment,
) -> None:
    server = Server()
    async with world.processor(server.answer, SETTINGS) as processor:
        batch = await world.submit(lines(200))
        await asyncio.sleep(5.0)
        done = (await world.get(batch.id)).counts.completed
        assert done >= 16
        in_flight = sum(server.calls.values()) - done
        aborted = now()
        processor.stop()
        processor.abort()
    assert now() - aborted < 0.6, "it takes two polls at most"
    async with world.processor(server.answer, SETTINGS):
        await asyncio.sleep(0.5)
        assert sum(server.calls.values()) > done + in_flight, "it went on at once"
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 200
    repeated = Counter(server.calls.values())
    assert repeated == {1: 200 - in_flight, 2: in_flight}


@scenario
async def test_after_a_stop_nothing_more_is_claimed_or_sent(world: Deployment) -> None:
    server = Server()
    async with world.processor(server.answer, SETTINGS) as processor:
        await world.submit(lines(200))
        await asyncio.sleep(1.0)
        processor.stop()
        sent = sum(server.calls.values())
        claims = counted(world)
        await world.submit(lines(20, prefix="late"))
    assert sum(server.calls.values()) == sent
    assert claims == []


def counted(world: Deployment) -> list[str]:
    """Return a list that gets the name of each claiming verb that is called from now on."""
    found: list[str] = []
    for verb in ("claim_planning", "claim_shards", "claim_finalizing"):
        meets(world.store, verb, partial(found.append, verb))
    return found
