"""The listening socket and its connections, as a service that can be stopped."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from tidegate.simulator.web.call import Call
from tidegate.simulator.web.connection import Connection

CONNECTIONS_MAX = 16_384
_SWEEP_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a connection may take, in seconds.

    `head_seconds` for a whole head, `body_seconds` between two pieces of a body, `idle_seconds`
    between requests, `stall_seconds` without reading while there is something to read, and
    `stop_grace_seconds` for replies in progress when the server is stopped.
    """

    head_seconds: float = 10.0
    body_seconds: float = 30.0
    idle_seconds: float = 75.0
    stall_seconds: float = 60.0
    stop_grace_seconds: float = 10.0


class Server:
    """Serves calls on a bound socket until it is stopped.

    Args:
        listener: bound and listening; it is closed at the end.
        handle: answers a call, now or later, and never raises.
        work: what runs beside the connections, until `end_work` is called.
        end_work: ends it.
        patience: how long connections may take.
        connections_max: how many there may be at a time; more get a 503.
    """

    def __init__(
        self,
        listener: socket.socket,
        handle: Callable[[Call], None],
        *,
        work: Callable[[], Coroutine[None, None, None]],
        end_work: Callable[[], None],
        patience: Patience | None = None,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        patience = patience or Patience()
        self.head_seconds = patience.head_seconds
        self.body_seconds = patience.body_seconds
        self.idle_seconds = patience.idle_seconds
        self.stall_seconds = patience.stall_seconds
        self.is_stopping = False
        self.listening = asyncio.Event()
        self.handle = handle
        self._grace_seconds = patience.stop_grace_seconds
        self._connections_max = connections_max
        self._listener = listener
        self._work = work
        self._end_work = end_work
        self._connections: set[Connection] = set()
        self._changed = asyncio.Event()
        self._forced = False

    @property
    def connections(self) -> int:
        """Count the open connections."""
        return len(self._connections)

    async def run(self) -> None:
        """Serve until `stop`, then let replies in progress end within the grace."""
        loop = asyncio.get_running_loop()
        clock = loop.time
        server = await loop.create_server(lambda: Connection(self, clock), sock=self._listener)
        try:
            async with asyncio.TaskGroup() as group:
                work = group.create_task(self._work(), name="engine")
                sweeper = group.create_task(self._sweep(), name="connection sweeper")
                self.listening.set()
                await self._wait_until(lambda: self.is_stopping)
                server.close()
                await self._end_connections()
                self._end_work()
                await work
                sweeper.cancel()
        finally:
            server.close()
            for connection in tuple(self._connections):
                connection.abort()

    async def wait_until_listening(self) -> None:
        """Return once connections are accepted."""
        await self.listening.wait()

    def stop(self) -> None:
        """Accept no more connections, and end when the open ones are served. Twice is harmless."""
        self.is_stopping = True
        self._changed.set()

    def abort(self) -> None:
        """Do not wait for open connections any longer."""
        self._forced = True
        self.stop()

    def entered(self, connection: Connection) -> bool:
        """Count a connection in; False if there is no room for it."""
        self._connections.add(connection)
        return len(self._connections) <= self._connections_max

    def left(self, connection: Connection) -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if self.is_stopping:
            self._changed.set()

    async def _end_connections(self) -> None:
        for connection in tuple(self._connections):
            connection.stop()
        try:
            async with asyncio.timeout(self._grace_seconds):
                await self._wait_until(lambda: self._forced or not self._connections)
        except TimeoutError:
            self._forced = True
        for connection in tuple(self._connections):
            connection.abort()

    async def _wait_until(self, true: Callable[[], bool]) -> None:
        while not true():
            self._changed.clear()
            await self._changed.wait()

    async def _sweep(self) -> None:
        """Look for what took too long: one task in place of a timer for each connection."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = loop.time()
            late = [connection for connection in self._connections if connection.deadline < now]
            for connection in late:
                connection.expire()
