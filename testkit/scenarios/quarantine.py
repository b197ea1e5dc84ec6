"""Deadly lines in virtual time: cells that die of them, and processors that do."""

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


class MemoryCell(Sandbox):
    """A cell without a process: a function answers, or raises `SandboxDied`."""

    def __init__(self, sandbox: "Cells") -> None:
        self._cells = sandbox
        self._turn = asyncio.Lock()
        self._closed = False

    @override
    async def send(self, call: Call) -> Reply:
        assert not self._closed, "a call through a closed cell"
        async with self._turn:
            self._cells.calls.append(call)
            try:
                return await self._cells.answer(call)
            except SandboxDied:
                self._cells.deaths += 1
                raise

    @override
    async def aclose(self) -> None:
        if not self._closed:
            self._closed = True
            self._cells.open -= 1


class Cells:
    """Makes the cells of an endpoint, and counts them.

    Attributes:
        open: cells that are open now; `open_max_seen` the most at once.
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
        """Open a cell."""
        self.open += 1
        self.open_max_seen = max(self.open_max_seen, self.open)
        return MemoryCell(self)


class PlanCells:
    """Opens cells in which batches are planned, and lets them die of calls.

    Attributes:
        dies_of: says of a call whether the cell that gets it dies of it.
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
        """Open a cell."""
        self.opened += 1
        self.open += 1
        return _MortalPlanCell(task, self)


class _MortalPlanCell(SandboxedPlanner):
    def __init__(self, task: PlanningTask, sandbox: PlanCells) -> None:
        super().__init__(task, io.BytesIO)
        self._cells = sandbox

    @override
    async def send(self, call: Call) -> Reply:
        self._cells.calls.append(call)
        if self._cells.dies_of(call):
            self._cells.deaths += 1
            raise SandboxDied("The child process was ended by SIGKILL (simulated).")
        return await super().send(call)

    @override
    async def aclose(self) -> None:
        self._cells.open -= 1
        await super().aclose()


class Lives:
    """A machine on which processors run, one after the other, whenever one has been killed.

    A call of which `is_deadly` is true kills the processor that sends it, or the cell.

    Attributes:
        deaths: processors that were killed, by a line or by `kill`.
        cells: the cells of all of them.
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
        self._open_plan_cell = open_plan_sandbox
        self._answer = answer
        self._is_deadly = is_deadly
        self._settings = settings
        self._life: asyncio.Task[None] | None = None
        self.deaths = 0
        self.sandbox = Cells(self._answer_in_cell)

    async def run(self) -> None:
        """Start processor after processor until cancelled."""
        while True:
            async with asyncio.TaskGroup() as group:
                self._life = group.create_task(self._live(), name="a processor's life")
            self.deaths += 1
            await asyncio.sleep(RESTART_SECONDS)

    def kill(self) -> None:
        """Kill the processor that runs now, if any; its cells and calls go with it."""
        if self._life is not None:
            self._life.cancel()

    async def _live(self) -> None:
        endpoint = Endpoint("e", MemoryUpstream(self._answer_here), open_sandbox=self.sandbox)
        async with self._world.processor(
            Routes(default=endpoint), self._settings, open_plan_sandbox=self._open_plan_cell
        ):
            await asyncio.Event().wait()

    async def _answer_here(self, call: Call) -> Reply:
        reply = await self._answer(call)
        if self._is_deadly(call):
            self.kill()
            await asyncio.Event().wait()
        return reply

    async def _answer_in_cell(self, call: Call) -> Reply:
        reply = await self._answer(call)
        if self._is_deadly(call):
            raise SandboxDied("The child process was ended by SIGKILL (simulated).")
        return reply


async def lose_twice(world: Deployment, batch_id: str, *, model: str = "m") -> None:
    """Plan a batch, and let every shard be lost twice by holders that vanish."""

    async def never(_: Call) -> Reply:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    lives = Lives(world, never)
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
