"""The children in which batches are planned whose planning was lost twice by a crash."""

import asyncio
import io

from typing_extensions import override

from testkit.world.environment import Environment
from testkit.world.host import Host
from tidegate.domain.errors import SandboxDied, SandboxNotStarted
from tidegate.planning.sandboxed import LINE, PlanningTask, SandboxedPlanner
from tidegate.upstreams.base import Call, Reply

# Fewer than it takes to give a batch up: in these worlds no file is deadly.
DEATHS_MAX = 5


class SimulatedPlanSandbox(SandboxedPlanner):
    """A child process: it dies of some lines, though of each one once at most."""

    def __init__(self, host: Host, ground: Environment, task: PlanningTask) -> None:
        super().__init__(task, io.BytesIO)
        self._host = host
        self._ground = ground
        self._started = False

    @override
    async def send(self, call: Call) -> Reply:
        rng, odds, ground = self._host.rng, self._host.odds, self._ground
        await asyncio.sleep(rng.uniform(0.0, odds.latency_seconds_max))
        if not self._started and rng.random() < odds.child_not_started:
            raise SandboxNotStarted("There is no child process to be had (simulated).")
        self._started = True
        line = call.body.decode()
        may_die = call.path == LINE and line not in ground.unlucky_plans
        if may_die and len(ground.unlucky_plans) < DEATHS_MAX and rng.random() < odds.child_dies:
            ground.unlucky_plans.add(line)
            ground.report.child_deaths += 1
            self._host.note(f"a child dies while it plans: {call.headers}")
            raise SandboxDied("A child process died while it planned (simulated).")
        return await super().send(call)
