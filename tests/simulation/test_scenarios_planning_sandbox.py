"""Batches whose planning kills the process that plans them (PROTOCOL 20), in virtual time."""

import asyncio
import random
from collections.abc import Callable

import pytest
from typing_extensions import override

from testkit.scenarios.quarantine import PlanSandboxes, RestartingProcessor
from testkit.scenarios.scenario import at_once, lines, now, scenario
from tidegate.domain.batch import Batch, Problem, Status
from tidegate.domain.errors import SandboxNotStarted
from tidegate.domain.shard import CRASHES_TO_QUARANTINE, DEATHS_TO_BLAME
from tidegate.planning import validate
from tidegate.planning.sandboxed import CHECK, LINE, SLICE
from tidegate.planning.session import PLANNING_DEATHS_MAX
from tidegate.planning.settings import Planning
from tidegate.processor.context import OpenPlanSandbox
from tidegate.processor.dispatch.quarantine import SANDBOX_WAIT_SECONDS
from tidegate.processor.settings import Settings
from tidegate.sandbox.base import Sandbox
from tidegate.testing.deployment import Deployment, ok, request_line
from tidegate.upstreams.base import Call, Reply
from tidegate.wire.jsonl import read_line
from tidegate.wire.lines import Line

DEADLY = request_line("deadly", content="unreadable")
SMALL = Settings(planning=Planning(shard_lines_max=3))
Kill = Callable[[], None]


def is_deadly(call: Call) -> bool:
    return b"unreadable" in call.body


async def soon(_: Call) -> Reply:
    await asyncio.sleep(0.1)
    return ok()


def reading_kills(monkeypatch: pytest.MonkeyPatch, kill: Kill) -> None:
    """Let reading the deadly line kill the processor; a cell dies before it comes to that."""

    def read_or_die(number: int, raw: bytes, *, endpoint: str) -> Line | Problem:
        if b"unreadable" in raw:
            kill()
        return read_line(number, raw, endpoint=endpoint)

    monkeypatch.setattr(validate, "read_line", read_or_die)


async def lose_planning(world: Deployment) -> None:
    """Let the planning of the only batch be lost as often as it takes."""
    for number in range(CRASHES_TO_QUARANTINE + 1):
        assert await world.store.claim_planning(f"ghost-{number}", lease_seconds=1.0) is not None
        await asyncio.sleep(1.5)


async def ended(world: Deployment, batch: Batch, sandbox: OpenPlanSandbox) -> Batch:
    async with world.processor(at_once, SMALL, open_plan_sandbox=sandbox):
        return await world.end_of(batch.id)


@scenario
async def test_a_deadly_line_of_a_file_costs_two_processors_and_is_named(
    world: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = PlanSandboxes(is_deadly)
    machine = RestartingProcessor(world, soon, open_plan_sandbox=sandbox)
    reading_kills(monkeypatch, machine.kill)
    batch = await world.submit([*lines(3), b"\n", DEADLY, *lines(3, prefix="more")])
    other = await world.submit(lines(5, prefix="other"))
    async with asyncio.TaskGroup() as group:
        life = group.create_task(machine.run(), name="machine")
        found, sound = await world.end_of(batch.id), await world.end_of(other.id)
        life.cancel()
    assert (found.status, found.counts.total) == (Status.FAILED, 0)
    assert [(problem.code, problem.line) for problem in found.problems] == [
        ("processor_crashed", 5)
    ]
    assert (sound.status, sound.counts.completed) == (Status.COMPLETED, 5)
    assert (machine.deaths, sandbox.deaths) == (CRASHES_TO_QUARANTINE, DEATHS_TO_BLAME)
    # The other batch was lost as often, by the deaths of those who planned both.
    assert (sandbox.opened, sandbox.open) == (DEATHS_TO_BLAME + 1, 0)


@pytest.mark.parametrize("seed", range(10))
@scenario
async def test_random_kills_of_processors_and_children_fail_no_batch(
    world: Deployment, seed: int
) -> None:
    rng = random.Random(seed)
    unlucky: set[bytes] = set()

    def dies_of(call: Call) -> bool:
        # As elsewhere: a child dies of a good line once at most.
        dies = len(unlucky) < 5 and call.body not in unlucky and rng.random() < 0.3
        if dies:
            unlucky.add(call.body)
        return dies

    sandbox = PlanSandboxes(dies_of)
    machine = RestartingProcessor(world, soon, settings=SMALL, open_plan_sandbox=sandbox)

    async def killer() -> None:
        for _ in range(6):
            await asyncio.sleep(rng.uniform(0.0, 25.0))
            machine.kill()

    created = await world.submit(lines(20))
    await lose_planning(world)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run(), name="life") for run in (killer, machine.run)]
        batch = await world.end_of(created.id)
        for task in tasks:
            task.cancel()
    assert (batch.status, batch.counts.completed) == (Status.COMPLETED, 20)
    assert sandbox.deaths > 0, "no child ever died"
    assert sandbox.open == 0


@scenario
async def test_a_child_plans_as_a_processor_does(world: Deployment) -> None:
    mixed = [
        request_line(f"{model}-{number}", model, content=f"{number % 3}")
        for number in range(10)
        for model in ("m", "n")
    ]
    plans: list[tuple[bytes, list[object]]] = []
    for alone in (False, True):
        sandbox = PlanSandboxes()
        created = await world.submit(mixed)
        if alone:
            await lose_planning(world)
        async with world.processor(soon, SMALL, open_plan_sandbox=sandbox):
            while not (batch := await world.get(created.id)).is_planned:  # noqa: ASYNC110 - virtual time passes
                await asyncio.sleep(0.01)
            assert batch.plan_blob is not None
            data = await world.blobs.read(
                batch.plan_blob, 0, await world.blobs.length(batch.plan_blob)
            )
            shards = [shard.plan for shard in await world.store.get_shards(batch.id)]
            plans.append((data, [batch.models, batch.counts.total, *shards]))
            assert (await world.end_of(batch.id)).counts.completed == 20
        assert sandbox.opened == int(alone)
    assert plans[0] == plans[1]
    assert len(plans[0][1]) > 4, "the plan has too few shards to be of use"


@scenario
async def test_a_child_finds_the_same_problems(world: Deployment) -> None:
    bad = [b"nonsense\n", *lines(1), *lines(1), b"x" * 200 + b"\n", *[b"{}\n"] * 5]
    settings = Settings(planning=Planning(errors_max=4, line_bytes_max=150))
    found: list[tuple[Problem, ...]] = []
    for alone in (False, True):
        sandbox = PlanSandboxes()
        created = await world.submit(bad)
        if alone:
            await lose_planning(world)
        async with world.processor(at_once, settings, open_plan_sandbox=sandbox):
            found.append((await world.end_of(created.id)).problems)
        assert sandbox.opened == int(alone)
    assert found[0] == found[1]
    assert len(found[0]) == 5


@pytest.mark.parametrize(
    ("count", "code"), [(0, "empty_file"), (4, None), (5, "too_many_tasks"), (50, "too_many_tasks")]
)
@scenario
async def test_a_child_gets_no_more_lines_than_a_file_may_have(
    world: Deployment, count: int, code: str | None
) -> None:
    sandbox = PlanSandboxes()
    created = await world.submit([b"\n", *lines(count)])
    await lose_planning(world)
    settings = Settings(planning=Planning(lines_max=4))
    async with world.processor(at_once, settings, open_plan_sandbox=sandbox):
        batch = await world.end_of(created.id)
    assert [problem.code for problem in batch.problems] == ([code] if code else [])
    assert sum(call.path == LINE for call in sandbox.calls) == min(count, 4)
    if code == "too_many_tasks":
        assert f"{count} requests" in batch.problems[0].message


@pytest.mark.parametrize("path", [CHECK, SLICE])
@scenario
async def test_a_batch_that_kills_wherever_it_is_planned_fails_in_the_end(
    world: Deployment, path: str
) -> None:
    sandbox = PlanSandboxes(lambda call: call.path == path)
    created = await world.submit(lines(5))
    await lose_planning(world)
    batch = await ended(world, created, sandbox)
    assert batch.status is Status.FAILED
    assert [(problem.code, problem.line) for problem in batch.problems] == [
        ("processor_crashed", None)
    ]
    assert sandbox.deaths == PLANNING_DEATHS_MAX


@scenario
async def test_one_death_less_than_the_bound_fails_nothing(world: Deployment) -> None:
    sandbox = PlanSandboxes(
        lambda call: call.path == SLICE and sandbox.deaths < PLANNING_DEATHS_MAX - 1
    )
    created = await world.submit(lines(5))
    await lose_planning(world)
    assert (await ended(world, created, sandbox)).counts.completed == 5


@scenario
async def test_deaths_of_different_lines_blame_none_of_them(world: Deployment) -> None:
    sandbox = PlanSandboxes(
        lambda call: (
            call.path == LINE
            and call.headers["number"] == str(sandbox.deaths + 1)
            and sandbox.deaths < 5
        )
    )
    created = await world.submit(lines(8))
    await lose_planning(world)
    assert (await ended(world, created, sandbox)).counts.completed == 8
    assert sandbox.deaths == 5


@scenario
async def test_a_child_that_was_replaced_starts_over_and_blames_no_line(world: Deployment) -> None:
    sandbox = PlanSandboxes()
    replaced = 0

    class Forgetful(Sandbox):
        """Its child ends while it idles, as often as wanted; the next call finds a new one."""

        def __init__(self, open_sandbox: Callable[[], Sandbox]) -> None:
            self._open = open_sandbox
            self._cell = open_sandbox()

        @override
        async def send(self, call: Call) -> Reply:
            nonlocal replaced
            if call.path == LINE and call.headers["number"] == "3" and replaced < 4:
                replaced += 1
                await self._cell.aclose()
                self._cell = self._open()
            return await self._cell.send(call)

        @override
        async def aclose(self) -> None:
            await self._cell.aclose()

    created = await world.submit(lines(5))
    await lose_planning(world)
    batch = await ended(world, created, lambda task: Forgetful(lambda: sandbox(task)))
    assert batch.counts.completed == 5
    assert (replaced, sandbox.open) == (4, 0)


@scenario
async def test_without_a_child_to_be_had_the_planning_waits_and_nothing_is_blamed(
    world: Deployment,
) -> None:
    sandbox = PlanSandboxes()
    refused: list[float] = []

    class NoSandbox(Sandbox):
        @override
        async def send(self, call: Call) -> Reply:
            refused.append(now())
            raise SandboxNotStarted("There is no child process to be had (simulated).")

        @override
        async def aclose(self) -> None:
            return

    created = await world.submit(lines(5))
    await lose_planning(world)
    batch = await ended(
        world, created, lambda task: NoSandbox() if len(refused) < 3 else sandbox(task)
    )
    assert batch.counts.completed == 5
    assert refused[2] - refused[0] >= 2 * SANDBOX_WAIT_SECONDS - 1e-6
