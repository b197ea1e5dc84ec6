"""Several processors on one deployment: what they share, and how they come and go."""

import asyncio
from collections import Counter
from collections.abc import Callable
from functools import partial

import pytest

from testkit.scenarios.scenario import lines, now, scenario
from tidegate.domain.batch import Status
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.planning.settings import Planning
from tidegate.processor.settings import Claims, Settings
from tidegate.testing.deployment import Deployment, model_of, ok
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

LEASE_SECONDS = 15.0
SETTINGS = Settings(
    claims=Claims(lease_seconds=LEASE_SECONDS), planning=Planning(shard_lines_max=20)
)
EIGHT = AimdSettings(start=8, min=1, max=8)


class Server:
    """A model server that takes a second for each call, and counts who calls."""

    def __init__(self, seconds: float = 1.0) -> None:
        self.seconds = seconds
        self.calls: Counter[str] = Counter()
        self.by_door: Counter[int] = Counter()
        self.most = 0
        self._doors = 0

    @property
    def in_flight(self) -> int:
        return sum(self.by_door.values())

    def routes(self, limits: AimdSettings = EIGHT) -> Routes:
        """Return the endpoint of one more processor."""
        number = self._doors
        self._doors += 1

        async def answer(call: Call) -> Reply:
            self.calls[call.headers["x-request-id"]] += 1
            self.by_door[number] += 1
            self.most = max(self.most, self.in_flight)
            try:
                await asyncio.sleep(self.seconds)
            finally:
                self.by_door[number] -= 1
            return ok(model_of(call))

        return Routes(default=Endpoint("upstream", MemoryUpstream(answer), limits=limits))


async def until(true: Callable[[], bool], *, within_seconds: float = 60.0) -> None:
    async with asyncio.timeout(within_seconds):
        while not true():  # noqa: ASYNC110 -- virtual time: the moment is what is asked for
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("count", [2, 3])
@scenario
async def test_the_limit_of_a_server_is_that_of_all_processors(
    world: Deployment, count: int
) -> None:
    server = Server()
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(alive(world, server, 400.0))
        await asyncio.sleep(1.0)
        batch = await world.submit(lines(2_000))
        await asyncio.sleep(20.0)
        # Nothing of the limit lies idle, but for the moment between a reply and the next call.
        parts = {2: [4, 4], 3: [2, 3, 3]}[count]
        await until(lambda: sorted(server.by_door.values()) == parts, within_seconds=0.02)
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 2_000
    assert server.most == 8
    assert set(server.calls.values()) == {1}


async def alive(world: Deployment, server: Server, seconds: float) -> None:
    """Run one processor for so long."""
    async with world.processor(server.routes(), SETTINGS):
        await asyncio.sleep(seconds)


@scenario
async def test_one_that_joins_gets_its_part_as_calls_land(world: Deployment) -> None:
    server = Server(seconds=2.0)
    async with world.processor(server.routes(), SETTINGS):
        batch = await world.submit(lines(400))
        await until(lambda: server.by_door[0] == 8)
        async with world.processor(server.routes(), SETTINGS):
            # Those that flew before they knew of each other have landed by then.
            await asyncio.sleep(3.0)
            server.most = 0
            await asyncio.sleep(10.0)
            assert (server.by_door[0], server.by_door[1]) == (4, 4)
            assert server.most == 8
        await world.cancel(batch.id)
        await world.end_of(batch.id)


@scenario
async def test_one_that_leaves_gives_its_part_back_at_once(world: Deployment) -> None:
    server = Server()
    async with world.processor(server.routes(), SETTINGS):
        batch = await world.submit(lines(400))
        async with world.processor(server.routes(), SETTINGS):
            await until(lambda: server.by_door[0] == server.by_door[1] == 4)
        left = now()
        assert len(await world.store.list_members()) == 1
        await until(lambda: server.by_door[0] == 8, within_seconds=1.5)
        assert now() - left < 1.5
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 400
    assert set(server.calls.values()) == {1}
    assert await world.store.list_members() == ()


@scenario
async def test_one_that_dies_gives_its_part_back_after_its_lease(world: Deployment) -> None:
    server = Server()
    async with asyncio.TaskGroup() as group, world.processor(server.routes(), SETTINGS):
        batch = await world.submit(lines(600))
        dying = group.create_task(alive(world, server, 10_000.0))
        await until(lambda: server.by_door[0] == server.by_door[1] == 4)
        dying.cancel()
        died = now()
        await asyncio.sleep(LEASE_SECONDS / 2)
        assert server.by_door[0] == 4, "it may only be slow"
        await until(lambda: server.by_door[0] == 8)
        assert now() - died < LEASE_SECONDS + 2.0
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 600


@scenario
async def test_with_less_than_one_call_for_each_some_do_nothing_and_hold_nothing(
    world: Deployment,
) -> None:
    server = Server()
    one = AimdSettings(start=1, min=1, max=1)
    async with (
        world.processor(server.routes(one), SETTINGS),
        world.processor(server.routes(one), SETTINGS),
        world.processor(server.routes(one), SETTINGS),
    ):
        await asyncio.sleep(1.0)
        batch = await world.end_of((await world.submit(lines(30))).id)
    assert (batch.status, batch.counts.completed) == (Status.COMPLETED, 30)
    assert server.most == 1
    assert now() < 35.0


def serves_one_each(server: Server, number: int) -> bool:
    return (server.by_door[0], server.by_door[number]) == (1, 1)


@scenario
async def test_a_shard_is_handed_on_when_nothing_of_the_limit_is_left_for_it(
    world: Deployment,
) -> None:
    server = Server()
    one = AimdSettings(start=1, min=1, max=1)
    # The names of these two fall to different places, whichever processor comes first.
    work = lines(30, "a", "a") + lines(30, "m", "m")
    async with world.processor(server.routes(one), SETTINGS):
        batch = await world.submit(work)
        await until(lambda: server.by_door[0] == 2)
        for number in range(1, 5):
            async with world.processor(server.routes(one), SETTINGS):
                await asyncio.sleep(3.0)
                # Each model takes one call: neither processor has both of them.
                await until(partial(serves_one_each, server, number), within_seconds=0.02)
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 60
    assert set(server.calls.values()) == {1}
