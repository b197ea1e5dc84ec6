"""The API processes: users reach the real desk through them, and they die like any other."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from testkit.world.environment import Environment
from testkit.world.host import Host
from testkit.world.ports import HostBlobs, HostSignals, behind
from tidegate.desk.desk import Desk
from tidegate.desk.settings import Settings
from tidegate.domain.errors import StorageBroken, TidegateError
from tidegate.endpoints.catalogue import Catalogue

T = TypeVar("T")
HOSTS = 2
_RESTART_SECONDS_MAX = 3.0
_SETTINGS = Settings(window_seconds_min=1)


class NoReply(Exception):
    """The connection broke before the user heard anything: whether it happened is not known."""


class _Outcome(Generic[T]):
    """What came of a request; neither where its process died."""

    def __init__(self) -> None:
        self.value: tuple[T] | None = None
        self.error: Exception | None = None

    async def take(self, request: Callable[[Desk], Awaitable[T]], desk: Desk) -> None:
        try:
            self.value = (await request(desk),)
        except (TidegateError, NoReply, TimeoutError) as error:
            self.error = error


class Front:
    """Some hosts that serve the desk; one that died is started anew when it is asked next."""

    def __init__(self, ground: Environment) -> None:
        self._ground = ground
        self._chance = ground.fork()
        self._desks: dict[int, tuple[Host, Desk]] = {}

    async def ask(self, what: str, request: Callable[[Desk], Awaitable[T]]) -> T:
        """Let a host do something for a user, and return what it answers.

        Raises:
            NoReply: the host died, or its reply was lost.
            TidegateError: the answer is no.
        """
        host, desk = await self._desk(self._chance.randrange(HOSTS))
        outcome: _Outcome[T] = _Outcome()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(outcome.take(request, desk), name=f"{what} on {host.name}")
            host.tasks.append(task)
            task.add_done_callback(host.tasks.remove)
        if isinstance(outcome.error, StorageBroken):
            # What the server does when it hears of it.
            host.note("ends, because its disk is broken")
            host.end_all()
            raise NoReply(what)
        if outcome.error is not None:
            raise outcome.error
        if outcome.value is None or self._chance.random() < host.odds.reply_lost:
            host.note(f"{what}: its user hears nothing")
            raise NoReply(what)
        host.note(f"{what}: answered")
        return outcome.value[0]

    async def _desk(self, number: int) -> tuple[Host, Desk]:
        found = self._desks.get(number)
        if found is not None and found[0].alive:
            return found
        if found is not None:
            self._ground.report.crashes += 1
            del self._desks[number]
            await asyncio.sleep(self._chance.uniform(0.0, _RESTART_SECONDS_MAX))
            return await self._desk(number)
        ground, host = self._ground, self._ground.host(f"api {number}")
        desk = Desk(
            settings=_SETTINGS,
            store=behind(ground.store, host),
            blobs=HostBlobs(ground.blobs, host, appends=ground.blobs.appends),
            signals=HostSignals(ground.signals, host),
            models=Catalogue({}, None),
            clock=host.clock,
            ids=ground.ids,
        )
        self._desks[number] = (host, desk)
        return host, desk
