"""A simulated model server inside a test's own event loop, on a free port of 127.0.0.1."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx

from tidegate.http_server.server import address_of, bind
from tidegate.runtime.clock import Clock
from tidegate.simulator.server.app import Simulator
from tidegate.simulator.server.service import SimulatorServer
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.web.server import CONNECTIONS_MAX, Patience

WAIT_SECONDS = 20.0


class Simulated:
    """A running server. `client` asks it; `url` is its base without a path."""

    def __init__(self, server: SimulatorServer, url: str, client: httpx.AsyncClient) -> None:
        self.server = server
        self.url = url
        self.client = client

    @property
    def simulator(self) -> Simulator:
        """Return the application."""
        return self.server.simulator

    @property
    def port(self) -> int:
        """Return the port."""
        return int(self.url.rpartition(":")[2])

    async def post(self, path: str, **body: object) -> httpx.Response:
        """Post a JSON body to a path."""
        return await self.client.post(path, json=body)

    async def metric(self, sample: str) -> float:
        """Return the value of a sample, by its name and labels as they are written."""
        text = (await self.client.get("/metrics")).text
        values = [row.rpartition(" ")[2] for row in text.splitlines() if row.startswith(sample)]
        assert values, f"there is no sample {sample}"
        return sum(map(float, values))

    async def until(self, true: Callable[[], bool]) -> None:
        """Return once something is true; fails if that takes too long."""
        async with asyncio.timeout(WAIT_SECONDS):
            # Nothing reports it: the code under test knows nothing of tests.
            while not true():  # noqa: ASYNC110 -- as above
                await asyncio.sleep(0.005)

    async def until_idle(self) -> None:
        """Return once the engine holds nothing and no request is open."""
        engine = self.simulator.driver.engine
        await self.until(
            lambda: (
                not (
                    engine.running or engine.waiting or engine.pool.held or self.simulator.in_flight
                )
            )
        )


@asynccontextmanager
async def simulated(
    settings: SimulatorSettings | None = None,
    *,
    wall: Clock | None = None,
    patience: Patience | None = None,
    connections_max: int = CONNECTIONS_MAX,
) -> AsyncIterator[Simulated]:
    """Run a simulated server for the time of the block."""
    listener = bind("127.0.0.1", 0, "port")
    url = address_of(listener)
    server = SimulatorServer(
        settings or SimulatorSettings(),
        listener,
        wall=wall,
        patience=patience,
        connections_max=connections_max,
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run(), name="simulated server")
        await server.wait_until_listening()
        async with httpx.AsyncClient(base_url=url, timeout=WAIT_SECONDS) as client:
            yield Simulated(server, url, client)
        server.abort()
