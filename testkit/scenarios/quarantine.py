"""Poison lines in virtual time: they kill sandboxes or processors."""

import asyncio
import io
from collections.abc import Awaitable, Callable

from typing_extensions import override

from tidegate.domain.errors import SandboxDied
from tidegate.domain.ledger.values import Want
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.planning.sandboxed import PlanningTask, SandboxedPlanner
from tidegate.processor.context import OpenPlanSandbox
from tidegate.processor.settings import Settings
from tidegate.sandbox.base import Sandbox
from tidegate.testing.deployment import Deployment
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

Answer = Callable[[Call], Awaitable[Reply]]
RESTART_SECONDS = 1.0
GHOSTS = 3


class MemorySandbox(Sandbox):
    """A sandbox without a process: a function answers, or raises `SandboxDied`."""

    def __init__(self, sandboxes: "MemorySandboxes") -> None:
        self._sandboxes = sandboxes
        self._turn = asyncio.Lock()
        self._closed = False

    @override
    async def send(self, call: Call) -> Reply:
        assert not self._closed, "a call through a closed sandbox"
        async with self._turn:
            self._sandboxes.calls.append(call)
            try:
                return await self._sandboxes.answer(call)
            except SandboxDied:
                self._sandboxes.deaths += 1
                raise

    @override
    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._sandboxes.open -= 1


class MemorySandboxes:
    """Makes the sandboxes of an endpoint, and counts them.

    Attributes:
        open: sandboxes that are open now; `open_max_seen` the most at once.
        calls: what was sent through any of them, in this order.
        deaths: how often one died.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.open = 0
        self.open_max_seen = 0
        self.calls: list[Call] = []
        self.deaths = 0

    def __call__(self) -> Sandbox:
        """Open a sandbox."""
        self.open += 1
        self.open_max_seen = max(self.open_max_seen, self.open)
        return MemorySandbox(self)


class PlanSandboxes:
    """Opens sandboxes in which batches are planned, and lets them die of calls.

    Attributes:
        dies_of: whether a call kills the sandbox that gets it.
        opened: how many there were; `open` of them are open now.
        calls: what was sent through any of them, in this order.
        deaths: how often one died.
    """

    def __init__(self, dies_of: Callable[[Call], bool] = lambda _: False) -> None:
        self.dies_of = dies_of
        self.opened = 0
        self.open = 0
        self.calls: list[Call] = []
        self.deaths = 0

    def __call__(self, task: PlanningTask) -> Sandbox:
        """Open a sandbox."""
        self.opened += 1
        self.open += 1
        return _DyingPlanSandbox(task, self)


class _DyingPlanSandbox(SandboxedPlanner):
    def __init__(self, task: PlanningTask, sandboxes: PlanSandboxes) -> None:
        super().__init__(task, io.BytesIO)
        self._sandboxes = sandboxes

    @override
    async def send(self, call: Call) -> Reply:
        self._sandboxes.calls.append(call)
        if self._sandboxes.dies_of(call):
            self._sandboxes.deaths += 1
            raise SandboxDied("The child process was ended by SIGKILL (simulated).")
        return await super().send(call)

    @override
    async def aclose(self) -> None:
        self._sandboxes.open -= 1
        await super().aclose()


class RestartingProcessor:
    """A machine on which processors run, one after the other, whenever one has been killed.

    A call of which `is_deadly` is true kills the processor that sends it, or the sandbox.

    Attributes:
        deaths: processors that were killed, by a line or by `kill`.
        sandboxes: the sandboxes of all of them.
    """

    def __init__(
        self,
        world: Deployment,
        answer: Answer,
        *,
        is_deadly: Callable[[Call], bool] = lambda _: False,
        settings: Settings | None = None,
        open_plan_sandbox: OpenPlanSandbox | None = None,
    ) -> None:
        self._world = world
        self._open_plan_sandbox = open_plan_sandbox
        self._answer = answer
        self._is_deadly = is_deadly
        self._settings = settings
        self._life: asyncio.Task[None] | None = None
        self.deaths = 0
        self.sandbox = MemorySandboxes(self._answer_in_sandbox)

    async def run(self) -> None:
        """Start processor after processor until cancelled."""
        while True:
            async with asyncio.TaskGroup() as group:
                self._life = group.create_task(self._live(), name="a processor's life")
            self.deaths += 1
            await asyncio.sleep(RESTART_SECONDS)

    def kill(self) -> None:
        """Kill the processor that runs now, if any; its sandboxes and calls go with it."""
        if self._life is not None:
            self._life.cancel()

    async def _live(self) -> None:
        endpoint = Endpoint("e", MemoryUpstream(self._answer_here), open_sandbox=self.sandbox)
        async with self._world.processor(
            Routes(default=endpoint), self._settings, open_plan_sandbox=self._open_plan_sandbox
        ):
            await asyncio.Event().wait()

    async def _answer_here(self, call: Call) -> Reply:
        reply = await self._answer(call)
        if self._is_deadly(call):
            self.kill()
            await asyncio.Event().wait()
        return reply

    async def _answer_in_sandbox(self, call: Call) -> Reply:
        reply = await self._answer(call)
        if self._is_deadly(call):
            raise SandboxDied("The child process was ended by SIGKILL (simulated).")
        return reply


async def lose_twice(world: Deployment, batch_id: str, *, model: str = "m") -> None:
    """Plan a batch, and let every shard be lost twice by holders that vanish."""

    async def never(_: Call) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    lives = RestartingProcessor(world, never)
    async with asyncio.TaskGroup() as group:
        machine = group.create_task(lives.run(), name="planner")
        while not (await world.get(batch_id)).is_planned:  # noqa: ASYNC110 - virtual time passes
            await asyncio.sleep(0.1)
        machine.cancel()
    await asyncio.sleep(Settings().claims.lease_seconds + 1.0)
    want = Want(batch_id=batch_id, model=model, limit=1_000)
    for number in range(GHOSTS):
        granted = await world.store.claim_shards(f"ghost-{number}", [want], lease_seconds=1.0)
        assert granted, "nothing to lose"
        await asyncio.sleep(1.5)
