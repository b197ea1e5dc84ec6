"""Lines that kill the process that handles them (PROTOCOL 20), in virtual time."""

import asyncio
import inspect
import random
from collections import Counter
from collections.abc import Callable

import pytest

from testkit.scenarios.quarantine import MemorySandboxes, RestartingProcessor, lose_twice
from testkit.scenarios.scenario import fails, lines, now, scenario
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import StoreUnavailable
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.planning.settings import Planning
from tidegate.processor.settings import Settings
from tidegate.stores.base import Store
from tidegate.testing.deployment import Deployment, ok, request_line
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

SMALL = Settings(planning=Planning(shard_lines_max=10))


def is_deadly(call: Call) -> bool:
    return b"poison" in call.body


async def soon(_: Call) -> Reply:
    await asyncio.sleep(0.1)
    return ok()


def poison(name: str = "bad") -> bytes:
    return request_line(name, content="poison")


async def reasons(world: Deployment, batch: Batch) -> dict[str, str]:
    """Return the code of each error line by its custom_id."""
    found = await world.results(batch)
    return {name: line.error.code for name, line in found.items() if line.error is not None}


async def ended(world: Deployment, batch_id: str, *machines: RestartingProcessor) -> Batch:
    """Let machines run until a batch has ended."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(machine.run(), name="machine") for machine in machines]
        batch = await world.end_of(batch_id)
        for task in tasks:
            task.cancel()
    return batch


@pytest.mark.parametrize("good", [0, 1, 9, 60, 200])
@scenario
async def test_a_poison_line_costs_two_processors_and_two_sandboxes_and_no_other_line(
    world: Deployment, good: int
) -> None:
    machine = RestartingProcessor(world, soon, is_deadly=is_deadly, settings=SMALL)
    created = await world.submit([*lines(good), poison()])
    batch = await ended(world, created.id, machine)
    assert (batch.status, batch.counts.completed) == (Status.COMPLETED, good)
    assert await reasons(world, batch) == {"bad": "processor_crashed"}
    assert (machine.deaths, machine.sandbox.deaths) == (2, DEATHS_TO_BLAME)
    assert machine.sandbox.open_max_seen <= Settings().sandbox.count_max
    assert machine.sandbox.open == 0


@scenario
async def test_two_poisons_in_one_shard_are_blamed_alone(world: Deployment) -> None:
    machine = RestartingProcessor(world, soon, is_deadly=is_deadly)
    created = await world.submit([poison("bad-0"), *lines(40), poison("bad-1")])
    batch = await ended(world, created.id, machine)
    assert batch.counts.completed == 40
    assert await reasons(world, batch) == dict.fromkeys(("bad-0", "bad-1"), "processor_crashed")
    assert (machine.deaths, machine.sandbox.deaths) == (2, 2 * DEATHS_TO_BLAME)
    order = [call.headers["x-request-id"].rpartition("_")[2] for call in machine.sandbox.calls]
    deadly = [place for place, number in enumerate(order) if number in {"1", "42"}]
    others = [place for place, number in enumerate(order) if number not in {"1", "42"}]
    assert max(others) < deadly[-2], "a second death came before the others had gone"


@scenario
async def test_poisons_in_many_shards_cost_each_shard_two_processors_at_most(
    world: Deployment,
) -> None:
    machine = RestartingProcessor(world, soon, is_deadly=is_deadly, settings=SMALL)
    mixed = [*lines(54), *(poison(f"bad-{number}") for number in range(6))]
    random.Random(0).shuffle(mixed)
    batch = await ended(world, (await world.submit(mixed)).id, machine)
    codes = await reasons(world, batch)
    assert Counter(codes.values()) == {"processor_crashed": 6}
    assert all(name.startswith("bad-") for name in codes)
    assert batch.counts.completed == 54
    assert machine.deaths <= 2 * 6


@scenario
async def test_two_machines_share_the_deaths_of_a_shard(world: Deployment) -> None:
    machines = [RestartingProcessor(world, soon, is_deadly=is_deadly) for _ in range(2)]
    created = await world.submit([*lines(30), poison()])
    batch = await ended(world, created.id, *machines)
    assert await reasons(world, batch) == {"bad": "processor_crashed"}
    assert sum(machine.deaths for machine in machines) == 2


@pytest.mark.parametrize("seed", range(25))
@scenario
async def test_random_kills_blame_no_line(world: Deployment, seed: int) -> None:
    rng = random.Random(seed)

    async def answer(_: Call) -> Reply:
        await asyncio.sleep(rng.uniform(0.0, 2.0))
        return ok()

    machine = RestartingProcessor(world, answer, settings=SMALL)

    async def killer() -> None:
        for _ in range(12):
            await asyncio.sleep(rng.uniform(0.0, 25.0))
            machine.kill()

    created = await world.submit(lines(rng.randint(1, 80)))
    async with asyncio.TaskGroup() as group:
        group.create_task(killer(), name="killer")
        batch = await ended(world, created.id, machine)
    assert batch.counts.completed == batch.counts.total
    assert await reasons(world, batch) == {}


class Counted:
    """A ledger that calls `on_call` before and after each of its calls."""

    def __init__(self, store: Store, on_call: Callable[[], None]) -> None:
        self._store = store
        self._on_call = on_call

    def __getattr__(self, name: str) -> object:
        found: object = getattr(self._store, name)
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: object, **named: object) -> object:
            self._on_call()
            await asyncio.sleep(0)
            answer: object = await found(*arguments, **named)
            self._on_call()
            await asyncio.sleep(0)
            return answer

        return call


async def killed_at(moment: int) -> bool:
    """Kill a processor at one moment of its work on a shard in quarantine; say if it came to it."""
    world = Deployment.make()
    machine = RestartingProcessor(world, soon, is_deadly=is_deadly)
    created = await world.submit([*lines(3), poison(), *lines(3, prefix="more")])
    await lose_twice(world, created.id)
    moments = 0

    def on_call() -> None:
        nonlocal moments
        moments += 1
        if moments == moment:
            machine.kill()

    world.store = Counted(world.store, on_call)  # type: ignore[assignment]  # it stands in for one
    batch = await ended(world, created.id, machine)
    assert await reasons(world, batch) == {"bad": "processor_crashed"}
    assert batch.counts.completed == 6
    # If it was killed between the death of its child and the record of it, one more child dies.
    assert DEATHS_TO_BLAME <= machine.sandbox.deaths <= DEATHS_TO_BLAME + 1
    return moments >= moment


@pytest.mark.parametrize("first", range(10))
def test_a_kill_at_any_moment_of_quarantine_blames_the_poison_alone(first: int) -> None:
    moment = 1 + first
    while run_virtual(killed_at(moment)):
        moment += 10
    assert moment > 60, "the story is too short to be of use"


ENDS = {
    "cancel": (Status.CANCELLED, "batch_cancelled"),
    "window": (Status.EXPIRED, "batch_expired"),
    # The stopped processor hands the shard back; by then there is only its end left to write.
    "stop": (Status.EXPIRED, "batch_expired"),
}


def through(sandbox: MemorySandboxes) -> Routes:
    """Return routes to an endpoint that is asked through these cells."""
    return Routes(default=Endpoint("e", MemoryUpstream(soon), open_sandbox=sandbox))


@pytest.mark.parametrize("why", ["cancel", "window", "stop"])
@scenario
async def test_a_line_whose_record_took_too_long_is_not_sent_any_more(
    world: Deployment, why: str
) -> None:
    """Until the ledger has answered it waits to be sent; what waits is not sent after an end."""

    batch = await world.submit(lines(3), window_seconds=60.0)
    await lose_twice(world, batch.id)
    answers_at = batch.expires_at - world.clock.now() + now() + 10.0
    silence = StoreUnavailable("The ledger is away.")
    fails(world.store, "record_suspect", silence, until=answers_at)
    sandbox, others = MemorySandboxes(soon), MemorySandboxes(soon)
    async with world.processor(through(sandbox)) as processor:
        await asyncio.sleep(answers_at - 15.0 - now())
        if why == "cancel":
            await world.cancel(batch.id)
        elif why == "stop":
            processor.stop()
        await asyncio.sleep(answers_at + 3.0 - now())
    assert (len(sandbox.calls), sandbox.open) == (0, 0)
    async with world.processor(through(others)):
        ended = await world.end_of(batch.id)
    status, code = ENDS[why]
    assert ended.status is status
    assert set((await reasons(world, ended)).values()) == {code}
    assert others.calls == []
