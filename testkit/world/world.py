"""One world, drawn from its seed: first faults happen; then they stop, and everything ends."""

import asyncio
import random
from dataclasses import dataclass

from testkit.world.api import Front
from testkit.world.blob_loss import BlobLoss
from testkit.world.broken import Broken
from testkit.world.checks import Checks
from testkit.world.environment import FAULTS_SECONDS, Environment, MakeStore, Report
from testkit.world.machines import Machines
from testkit.world.model_server import ModelServer
from testkit.world.users import User

HEALTHY_WITHIN_SECONDS = 180.0
ENDS_WITHIN_SECONDS = 1_800.0
MACHINES = 2
FOUND_SECONDS_MAX = 10.0
ORPHANED_SECONDS_MAX = 40.0
WINDOW_SECONDS = 86_400.0
WINDOWS_CLOSE_SECONDS = 30.0
_BEREAVED_WORLDS = 0.25
_FOUND = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphans:
    """In some worlds all processors die, and faults go on for `seconds` more; 0.0 elsewhere.

    Batches are then ended by a collector alone, unless another processor comes
    `found_after_seconds` after it.
    """

    seconds: float = 0.0
    found_after_seconds: float | None = None

    @classmethod
    def drawn(cls, rng: random.Random) -> "Orphans":
        """Draw what happens in one world."""
        if rng.random() >= _BEREAVED_WORLDS:
            return cls()
        seconds = rng.uniform(FOUND_SECONDS_MAX, ORPHANED_SECONDS_MAX)
        found = rng.random() < _FOUND
        after = rng.uniform(0.0, FOUND_SECONDS_MAX) if found else None
        return cls(seconds=seconds, found_after_seconds=after)


class World:
    """One seeded deployment. `run` raises where a promise was not kept."""

    def __init__(self, seed: int, make_store: MakeStore) -> None:
        self._ground = Environment(seed, make_store)
        self._server = ModelServer(self._ground)
        # A chance of its own, so that most seeds keep their stories.
        self._orphans = Orphans.drawn(random.Random(f"orphans {seed}"))
        self._machines = Machines(self._ground, self._server)
        front = Front(self._ground)
        self._users = [
            User(self._ground, front, number) for number in range(self._ground.rng.randint(1, 3))
        ]

    async def run(self) -> Report:
        """Live through the faults, then see every batch end well.

        Raises:
            Broken: an invariant did not hold; its notes list what happened last.
        """
        try:
            return await self._run()
        except BaseException as error:
            self._ground.complaints.raise_first()
            error.add_note(f"The last port calls:\n{self._ground.timeline.text()}")
            raise

    async def _run(self) -> Report:
        ground = self._ground
        checks = Checks(ground, [user.order for user in self._users])
        async with ground.raw_store:
            await self._live(checks)
            ground.complaints.raise_first()
            await checks.check()
            await checks.collect()
            await checks.check()
            ground.complaints.raise_first()
        report = ground.report
        report.commits_refused = ground.account.refused
        report.exposed_lines_max = self._server.exposed_lines_max
        report.seconds = asyncio.get_running_loop().time()
        return report

    async def _live(self, checks: Checks) -> None:
        async with asyncio.TaskGroup() as group:
            machines = [
                group.create_task(self._machines.keep(number), name=f"machine {number}")
                for number in range(MACHINES)
            ]
            users = [group.create_task(user.live(), name=user.order.name) for user in self._users]
            loss = group.create_task(BlobLoss(self._ground).visit(), name="blob loss")
            orphans = self._orphans
            await asyncio.sleep(FAULTS_SECONDS)
            if orphans.seconds:
                await self._bereave(group, machines)
                await asyncio.sleep(orphans.seconds)
            await loss
            self._ground.timeline.note("world", "becomes calm")
            self._ground.become_calm()
            await self._ends(users, checks)
            for task in machines:
                task.cancel()

    async def _bereave(self, group: asyncio.TaskGroup, machines: list[asyncio.Task[None]]) -> None:
        """Let every processor die; when every window has closed, only a collector is there."""
        self._ground.timeline.note("world", "loses its processors")
        for task in machines:
            task.cancel()
        await asyncio.wait(machines)
        machines[:] = [group.create_task(self._machines.collect(), name="collecting")]
        machines.append(group.create_task(self._let_time_fly(), name="time"))
        after = self._orphans.found_after_seconds
        if after is not None:
            await asyncio.sleep(after)
            machines.append(group.create_task(self._machines.keep(MACHINES), name="a late machine"))

    async def _let_time_fly(self) -> None:
        """Close every window again and again, also those of batches that are yet to come."""
        while True:
            self._ground.pass_time(WINDOW_SECONDS)
            await asyncio.sleep(WINDOWS_CLOSE_SECONDS)

    async def _ends(self, users: list[asyncio.Task[None]], checks: Checks) -> None:
        """Wait until all has ended; with no more faults that must not take long.

        A model that is still away holds up nobody who does not ask for it.
        """
        dead = self._server.dead_model
        healthy = [
            task
            for task, user in zip(users, self._users, strict=True)
            if dead not in user.order.models
        ]
        try:
            async with asyncio.timeout(HEALTHY_WITHIN_SECONDS):
                await asyncio.gather(*healthy)
            async with asyncio.timeout(ENDS_WITHIN_SECONDS):
                await asyncio.gather(*users)
                await checks.wait_for_ends()
        except TimeoutError:
            left = [batch for batch in await checks.batches() if not batch.is_terminal]
            raise Broken(f"not ended without faults: {left}") from None
