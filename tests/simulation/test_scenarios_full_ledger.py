"""A ledger without room for longer than a lease: no sound shard counts as lost by a crash."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from testkit.scenarios.quarantine import RestartingProcessor
from testkit.scenarios.scenario import fails, lines, now, scenario
from tidegate.domain.batch import Status
from tidegate.domain.errors import StorageFull
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.planning.settings import Planning
from tidegate.processor.settings import Claims, InFlightLimits, Settings
from tidegate.processor.write_gate import HOLDERS_FIRST_SECONDS, PROBE_SECONDS
from tidegate.testing.deployment import TENANT, Deployment, model_of, ok
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

FULL = StorageFull("No room is left on this device.")
LEASE_SECONDS = 15.0
FULL_FROM = 3.2
SETTINGS = Settings(
    claims=Claims(lease_seconds=LEASE_SECONDS), planning=Planning(shard_lines_max=50)
)
FEW = replace(SETTINGS, limits=InFlightLimits(in_flight_max=4))
WRITES = (
    "renew_membership",
    "begin_writer",
    "check",
    "claim_finalizing",
    "claim_planning",
    "claim_shards",
    "commit",
    "hand_back",
    "note_waiting",
    "renew",
)


class Server:
    """Answers after half a second, and counts what it is sent."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def routes(self) -> Routes:
        limits = AimdSettings(start=4, min=1, max=4)
        return Routes(default=Endpoint("upstream", MemoryUpstream(self.answer), limits=limits))

    async def answer(self, call: Call) -> Reply:
        self.calls[call.headers["x-request-id"]] += 1
        await asyncio.sleep(0.5)
        return ok(model_of(call))


@pytest.mark.parametrize("count", [50, 100, 300])
@pytest.mark.parametrize("seconds", [9.0, 11.0, 14.8, 15.0, 15.3, 20.0, 47.0, 200.0])
@scenario
async def test_it_is_no_crash_of_those_who_hold_them(
    world: Deployment, seconds: float, count: int
) -> None:
    server = Server()
    for verb in WRITES:
        fails(world.store, verb, FULL, since=FULL_FROM, until=FULL_FROM + seconds)
    async with (
        world.processor(server.routes(), SETTINGS),
        world.processor(server.routes(), SETTINGS),
    ):
        batch = await world.submit(lines(count))
        await asyncio.sleep(FULL_FROM + seconds + 10.0)
        shards = await world.store.get_shards(batch.id)
        ended = await world.end_of(batch.id)
    assert ended.status is Status.COMPLETED
    assert [shard.crashes for shard in shards] == [0] * len(shards)
    assert set(server.calls.values()) == {1}, "a line was sent again"


@scenario
async def test_a_dead_processor_is_replaced_when_there_is_room(world: Deployment) -> None:
    server = Server()
    await world.submit(lines(50))
    until = FULL_FROM + 2 * LEASE_SECONDS
    for verb in WRITES:
        fails(world.store, verb, FULL, since=FULL_FROM, until=until)
    machine = RestartingProcessor(world, server.answer, settings=FEW)
    async with asyncio.TaskGroup() as group:
        life = group.create_task(machine.run(), name="machine")
        await asyncio.sleep(FULL_FROM + 1.0)
        life.cancel()
    async with world.processor(server.routes(), SETTINGS):
        [batch] = (await world.store.list_batches(TENANT, after=None, limit=1)).items
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 50
    [shard] = await world.store.get_shards(batch.id)
    assert shard.crashes == 1
    assert now() < until + PROBE_SECONDS + HOLDERS_FIRST_SECONDS + 10.0
