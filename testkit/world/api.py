"""The API processes, through which users reach the real application; they crash as all do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from testkit.world.environment import Environment
from testkit.world.host import Host
from testkit.world.ports import HostBlobs, HostPubSub, behind
from tidegate.application.context import Application
from tidegate.application.settings import Settings
from tidegate.domain.errors import StorageBroken, TidegateError
from tidegate.endpoints.catalogue import Catalogue

T = TypeVar("T")
HOSTS = 2
_RESTART_SECONDS_MAX = 3.0
_SETTINGS = Settings(window_seconds_min=1)


class NoReply(Exception):
    """The connection broke before the user got an answer: whether it happened is not known."""


class _Outcome(Generic[T]):
    """What came of a request; neither where its process died."""

    def __init__(self) -> None:
        self.value: tuple[T] | None = None
        self.error: Exception | None = None

    async def take(self, request: Callable[[Application], Awaitable[T]], app: Application) -> None:
        try:
            self.value = (await request(app),)
        except (TidegateError, NoReply, TimeoutError) as error:
            self.error = error


class Front:
    """Some hosts that serve the API; one that died is started again at the next request."""

    def __init__(self, ground: Environment) -> None:
        self._ground = ground
        self._chance = ground.fork()
        self._apps: dict[int, tuple[Host, Application]] = {}

    async def ask(self, what: str, request: Callable[[Application], Awaitable[T]]) -> T:
        """Let a host do something for a user, and return what it answers.

        Raises:
            NoReply: the host died, or its reply was lost.
            TidegateError: the answer is no.
        """
        host, app = await self._app(self._chance.randrange(HOSTS))
        outcome: _Outcome[T] = _Outcome()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(outcome.take(request, app), name=f"{what} on {host.name}")
            host.tasks.append(task)
            task.add_done_callback(host.tasks.remove)
        if isinstance(outcome.error, StorageBroken):
            # What the server does when it learns of it.
            host.note("ends, because its disk is broken")
            host.end_all()
            raise NoReply(what)
        if outcome.error is not None:
            raise outcome.error
        if outcome.value is None or self._chance.random() < host.odds.reply_lost:
            host.note(f"{what}: its user gets no answer")
            raise NoReply(what)
        host.note(f"{what}: answered")
        return outcome.value[0]

    async def _app(self, number: int) -> tuple[Host, Application]:
        found = self._apps.get(number)
        if found is not None and found[0].alive:
            return found
        if found is not None:
            self._ground.report.crashes += 1
            del self._apps[number]
            await asyncio.sleep(self._chance.uniform(0.0, _RESTART_SECONDS_MAX))
            return await self._app(number)
        ground, host = self._ground, self._ground.host(f"api {number}")
        app = Application(
            settings=_SETTINGS,
            store=behind(ground.store, host),
            blobs=HostBlobs(ground.blobs, host, appends=ground.blobs.appends),
            pubsub=HostPubSub(ground.pubsub, host),
            models=Catalogue({}, None),
            clock=host.clock,
            ids=ground.ids,
        )
        self._apps[number] = (host, app)
        return host, app
