"""A simulated server as one service: the application on a socket."""

import asyncio
import socket

from tidegate.runtime.clock import Clock
from tidegate.simulator.app import Simulator
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.web.server import CONNECTIONS_MAX, Patience, Server


class SimulatorServer(Server):
    """Serves a simulator on a bound socket. It must be made inside the event loop that runs it.

    Attributes:
        simulator: what it serves.
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
        self.simulator = Simulator(settings, asyncio.get_running_loop().time, wall)
        super().__init__(
            listener,
            self.simulator.handle,
            work=self.simulator.driver.run,
            end_work=self.simulator.driver.stop,
            patience=patience,
            connections_max=connections_max,
        )
