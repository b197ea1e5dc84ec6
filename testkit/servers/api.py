"""The public API on a real socket, over back-ends in memory, for tests of clients."""

import asyncio
import random
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from tidegate.api.app import build_app
from tidegate.api.settings import Settings
from tidegate.blobs.base import BlobStore
from tidegate.blobs.memory import MemoryBlobs
from tidegate.endpoints.endpoint import Routes
from tidegate.http_server.limits import ServerTimeouts
from tidegate.http_server.server import WebServer, address_of, bind
from tidegate.processor.settings import Claims, Drain, Settings as ProcessorSettings
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.runtime.clock import Clock
from tidegate.stores.base import Store
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import ManualClock
from tidegate.testing.deployment import Answer, Deployment
from tidegate.testing.ids import SeededIds


class RememberedLog:
    """Keeps the errors that were logged, for a test to look at."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, object]]] = []

    def error(self, event: str, **fields: object) -> None:
        """Record an event with its fields."""
        self.events.append((event, fields))


class FixedModels:
    """Serves the same models all the time."""

    def __init__(self, *names: str) -> None:
        self.names = names

    async def list_models(self) -> Sequence[str]:
        """Return their names."""
        return self.names


@dataclass(kw_only=True)
class ApiWorld:
    """Everything behind one API, at hand for a test.

    Attributes:
        asked: the method and path of each request that arrived, in order.
    """

    settings: Settings = field(default_factory=Settings)
    clock: Clock = field(default_factory=ManualClock)
    store: Store = field(init=False)
    blobs: BlobStore = field(default_factory=MemoryBlobs)
    pubsub: MemoryPubSub = field(default_factory=MemoryPubSub)
    models: FixedModels = field(default_factory=lambda: FixedModels("tide-1", "org/tide-2"))
    ids: SeededIds = field(default_factory=lambda: SeededIds(random.Random(7)))
    log: RememberedLog = field(default_factory=RememberedLog)
    url: str = ""
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = MemoryStore(self.clock)

    @property
    def port(self) -> int:
        """The port on which the API listens."""
        return int(self.url.rpartition(":")[2])


@asynccontextmanager
async def served(world: ApiWorld) -> AsyncIterator[ApiWorld]:
    """Serve the world's API on a free port of 127.0.0.1; its `url` says where."""
    app = build_app(
        settings=world.settings,
        store=world.store,
        blobs=world.blobs,
        pubsub=world.pubsub,
        models=world.models,
        clock=world.clock,
        ids=world.ids,
        log=world.log,
    )

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        world.asked.append(f"{scope['method']} {scope['path']}")
        await app(scope, receive, send)

    listener = bind("127.0.0.1", 0, "server.port")
    world.url = address_of(listener)
    server = WebServer(watched, listener, ServerTimeouts(stop_grace_seconds=1))
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run(), name="test api")
        await server.wait_until_listening()
        try:
            yield world
        finally:
            server.stop()


@asynccontextmanager
async def served_and_run(
    world: ApiWorld,
    routes: Routes | Mapping[str, Answer] | Answer,
    settings: ProcessorSettings | None = None,
) -> AsyncIterator[ApiWorld]:
    """Serve the world's API, with a processor behind it that runs its batches in real time.

    Without `settings` it looks for work every 20 ms and, when stopped, waits for no reply.
    """
    behind = Deployment(world.store, world.blobs, world.pubsub, world.clock, world.ids)
    quick = ProcessorSettings(claims=Claims(poll_seconds=0.02), drain=Drain(stop_grace_seconds=0))
    async with served(world), behind.processor(routes, settings or quick):
        yield world
