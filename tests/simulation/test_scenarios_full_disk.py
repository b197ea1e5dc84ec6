"""A disk without room, and one that breaks: what is sent, what is said, and who goes on."""

import asyncio
from collections import Counter

import pytest
from typing_extensions import override

from testkit.scenarios.scenario import fails, lines, now, scenario
from tidegate.blobs.memory import MemoryBlobs
from tidegate.cli.exit_codes import failure_reason
from tidegate.domain.batch import Status
from tidegate.domain.errors import StorageBroken, StorageFull, StoreUnavailable
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.processor.service import Processor
from tidegate.processor.settings import Claims, Settings
from tidegate.runtime.health import Condition
from tidegate.testing.deployment import Deployment, model_of, ok
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream
from tidegate.wiring.context import storage_condition

FULL = StorageFull("No room is left on this device.")
LEASE_SECONDS = 15.0
UNREAD_SECONDS = 6 * LEASE_SECONDS
SETTINGS = Settings(claims=Claims(lease_seconds=LEASE_SECONDS))


class Server:
    """Answers after half a second, and counts what it is sent."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    @property
    def sent(self) -> int:
        return sum(self.calls.values())

    def routes(self) -> Routes:
        """Return the endpoint of one processor, with 16 calls in flight."""
        limits = AimdSettings(start=16, min=1, max=16)
        return Routes(default=Endpoint("upstream", MemoryUpstream(self.answer), limits=limits))

    async def answer(self, call: Call) -> Reply:
        self.calls[call.headers["x-request-id"]] += 1
        await asyncio.sleep(0.5)
        return ok(model_of(call))


class PlansUnread(MemoryBlobs):
    """Has no descriptor left to read a plan, for a while."""

    @override
    async def read(self, name: str, offset: int, length: int) -> bytes:
        if name.startswith("plans/") and now() < UNREAD_SECONDS:
            raise FULL
        return await super().read(name, offset, length)


def why(processor: Processor) -> str | None:
    """Return why the processor sends nothing; a call, as the answer changes meanwhile."""
    return processor.storage_reason


@pytest.mark.parametrize(("port", "verb"), [("blobs", "append"), ("store", "commit")])
@scenario
async def test_while_results_find_no_room_nothing_new_is_sent(
    world: Deployment, port: str, verb: str
) -> None:
    server = Server()
    fails(getattr(world, port), verb, FULL, since=3.2, until=63.2)
    async with world.processor(server.routes(), SETTINGS) as processor:
        batch = await world.submit(lines(1_000))
        await asyncio.sleep(3.0)
        assert why(processor) is None
        await asyncio.sleep(2.0)
        assert why(processor) == str(FULL)
        assert storage_condition(processor) == Condition(is_ok=False, message=str(FULL))
        paused = server.sent
        await asyncio.sleep(58.0)
        assert server.sent == paused, "lines were sent whose results find no room"
        assert paused < 200, "the pause begins with the first refusal"
        await asyncio.sleep(4.0)
        assert why(processor) is None
        assert storage_condition(processor) == Condition(is_ok=True, message="ok")
        assert server.sent > paused, "it goes on by itself"
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 1_000
    assert set(server.calls.values()) == {1}


@scenario
async def test_a_plan_that_finds_no_room_is_tried_again_later(world: Deployment) -> None:
    server = Server()
    fails(world.store, "plan_batch", FULL, until=2.0)
    fails(world.blobs, "check", FULL, until=30.0)
    refuse_plans(world, until=2.0)
    async with world.processor(server.routes(), SETTINGS) as processor:
        batch = await world.submit(lines(10))
        await asyncio.sleep(20.0)
        assert why(processor) is not None
        assert (await world.get(batch.id)).status is Status.VALIDATING
        ended = await world.end_of(batch.id, within_seconds=20.0)
        assert why(processor) is None
    assert ended.counts.completed == 10


def refuse_plans(world: Deployment, *, until: float) -> None:
    """Let writers of blobs find no room for a while."""
    make = world.blobs.writer

    def refusing(name: str) -> object:
        if now() < until:
            raise FULL
        return make(name)

    world.blobs.writer = refusing  # type: ignore[assignment, method-assign]  # that is the story


@scenario
async def test_a_ledger_without_room_is_reported_and_asked_again(world: Deployment) -> None:
    server = Server()
    fails(world.store, "claim_shards", FULL, until=10.0)
    fails(world.store, "check", FULL, until=10.0)
    async with world.processor(server.routes(), SETTINGS) as processor:
        batch = await world.submit(lines(10))
        await asyncio.sleep(5.0)
        assert why(processor) == str(FULL)
        ended = await world.end_of(batch.id, within_seconds=10.0)
        assert why(processor) is None
    assert ended.counts.completed == 10


@scenario
async def test_a_full_disk_keeps_nobody_from_stopping(world: Deployment) -> None:
    server = Server()
    fails(world.blobs, "append", FULL, since=2.2, until=40.0)
    async with world.processor(server.routes(), SETTINGS) as processor:
        batch = await world.submit(lines(200))
        await asyncio.sleep(5.0)
        processor.abort()
    assert now() < 5.0 + LEASE_SECONDS + 1.0
    async with world.processor(server.routes(), SETTINGS):
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 200
    # Lost with their processor: what was in flight, and results that found no room in time.
    assert server.sent - 200 <= 32


@scenario
async def test_a_ledger_that_is_away_is_no_full_disk(world: Deployment) -> None:
    server = Server()
    fails(world.store, "commit", StoreUnavailable("away"), since=1.0, until=5.0)
    async with world.processor(server.routes(), SETTINGS) as processor:
        batch = await world.submit(lines(100))
        await asyncio.sleep(3.0)
        assert why(processor) is None
        await world.end_of(batch.id)


@pytest.mark.parametrize(("port", "verb"), [("blobs", "append"), ("store", "commit")])
@scenario
async def test_a_failed_flush_ends_the_processor_and_another_takes_over(
    world: Deployment, port: str, verb: str
) -> None:
    server = Server()
    broken = StorageBroken("A flush failed; check the disk.")
    fails(getattr(world, port), verb, broken, since=2.0, until=10.0)
    batch = await world.submit(lines(200))
    caught = await death(world, server)
    assert now() < 4.0
    assert leaves(caught) == [broken]
    assert failure_reason(caught) == "A flush failed; check the disk."
    done = (await world.get(batch.id)).counts.completed
    assert done < 200
    died = now()
    await asyncio.sleep(8.0)
    async with world.processor(server.routes(), SETTINGS):
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 200
    assert now() - died < LEASE_SECONDS + 20.0
    assert server.sent - 200 <= 32


async def death(world: Deployment, server: Server) -> ExceptionGroup:
    """Run a processor that dies of an error; return the error."""
    try:
        async with world.processor(server.routes(), SETTINGS) as processor:
            assert isinstance(processor, Processor)
            await asyncio.sleep(100.0)
    except ExceptionGroup as group:
        return group
    raise AssertionError("it should have died")


def leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


@scenario
async def test_a_plan_that_can_not_be_removed_ends_nobody(world: Deployment) -> None:
    fails(world.blobs, "delete", FULL)
    async with world.processor(Server().routes(), SETTINGS):
        for _ in range(2):
            batch = await world.submit(lines(3))
            assert (await world.end_of(batch.id)).status is Status.COMPLETED


@scenario
async def test_plans_that_can_not_be_read_for_now_are_no_crash(world: Deployment) -> None:
    server = Server()
    world.blobs = PlansUnread(appends=True)
    async with (
        world.processor(server.routes(), SETTINGS),
        world.processor(server.routes(), SETTINGS),
    ):
        batch = await world.submit(lines(1))
        ended = await world.end_of(batch.id)
        assert now() < UNREAD_SECONDS + 5.0, "as soon as they can be read"
    assert ended.counts.completed == 1
    shards = await world.store.get_shards(batch.id)
    assert [shard.crashes for shard in shards] == [0], "too many open files are no crash"
