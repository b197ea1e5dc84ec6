"""A simulated server as one service: the application on a socket."""

import asyncio
import socket
from typing import Protocol, Self

from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.clock import Clock
from tidegate.simulator.kv_events.config import KvEventsConfig
from tidegate.simulator.kv_events.feed import Batch
from tidegate.simulator.server.app import Simulator
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.web.server import CONNECTIONS_MAX, Patience, Server


class SimulatorServer(Server):
    """Serves a simulator on a bound socket. It must be made inside the event loop that runs it.

    Attributes:
        simulator: what it serves.
        kv_events: where the events of its prefix cache go; None for nowhere.
    """

    def __init__(
        self,
        settings: SimulatorSettings,
        listener: socket.socket,
        *,
        wall: Clock | None = None,
        patience: Patience | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """Set the server up.

        Raises:
            SettingsInvalid: the sockets of KV events can't be had.
        """
        self._publisher = _publisher(settings.kv_events) if settings.kv_events.is_on else None
        publisher = self._publisher
        self.kv_events = None if publisher is None else publisher.config
        self.simulator = Simulator(
            settings,
            asyncio.get_running_loop().time,
            wall,
            publish=None if publisher is None else publisher.publish,
            kv_sources=self.kv_events,
        )
        super().__init__(
            listener,
            self.simulator.handle,
            work=self._live,
            end_work=self.simulator.driver.stop,
            patience=patience,
            connections_max=connections_max,
        )

    async def _live(self) -> None:
        if self._publisher is None:
            await self.simulator.driver.run()
            return
        with self._publisher:
            await self.simulator.driver.run()


class _Publisher(Protocol):
    config: KvEventsConfig

    def publish(self, batch: Batch) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


def _publisher(config: KvEventsConfig) -> _Publisher:
    try:
        # Only who wants events needs the package.
        from tidegate.simulator.kv_events.publisher import Publisher  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise SettingsInvalid(
            "--kv-events-config needs the package pyzmq: pip install 'tidegate[simulator]'."
        ) from error
    return Publisher(config)
