"""HTTP in: one listening socket served by uvicorn, as a service that can be stopped.

uvicorn would install signal handlers and name itself in each reply; here it does neither.
"""

import asyncio
import errno
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.door import Door, DoorConfig
from tidegate.runtime.identity import IdMaker, RandomIds

BACKLOG = 2_048
KEEP_ALIVE_SECONDS = 75
CONNECTIONS_MAX = 512
OPEN_FILES_MAX = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long connections may take for a head, idle between requests, and linger at the stop.

    `head_seconds` runs from the connection, or the first byte of a later request, to the end of the
    request's headers. A client that takes no byte of its reply for `reply_idle_seconds`, or for
    twice as long at most, is given up.
    """

    head_seconds: float = 10.0
    reply_idle_seconds: float = 60.0
    keep_alive_seconds: int = KEEP_ALIVE_SECONDS
    stop_grace_seconds: int = 10

    def __post_init__(self) -> None:
        if min(self.keep_alive_seconds, self.stop_grace_seconds) < 1:
            raise SettingsInvalid("Server timeouts must be at least 1 second.")
        for name in ("head_seconds", "reply_idle_seconds"):
            if getattr(self, name) <= 0:
                raise SettingsInvalid(f"server.timeouts.{name} must be above 0.")


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Take a port now, so that a conflict is told before anything else is started.

    `setting` is the name of the setting that chose the port; port 0 takes any free one.

    Raises:
        SettingsInvalid: the port is in use, not permitted, or the host is not of this machine.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as exc:
        raise SettingsInvalid(f"server.host '{host}' is not an address of this machine.") from exc
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        listener.close()
        if exc.errno == errno.EADDRINUSE:
            message = f"Port {port} on {host} is in use: stop what listens there, or set {setting}."
        else:
            message = f"Can't listen on {host} port {port} ({exc.strerror}): set {setting}."
        raise SettingsInvalid(message) from exc
    listener.setblocking(False)
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the base URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def raise_open_files() -> None:
    """Permit this process as many open files as the system lets it, up to `OPEN_FILES_MAX`."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = OPEN_FILES_MAX if hard == unlimited else min(hard, OPEN_FILES_MAX)
    if soft != unlimited and soft < wanted:
        # Some systems refuse what their own hard limit names; the old limit serves as well.
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals alone and says when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()


class WebServer:
    """Serves an ASGI application on a bound socket until it is stopped."""

    def __init__(
        self,
        app: ASGIApp,
        listener: socket.socket,
        timeouts: Timeouts,
        *,
        connections_max: int = CONNECTIONS_MAX,
        ids: IdMaker | None = None,
    ) -> None:
        """Set the server up; `ids` names the requests that are refused before the application."""
        self._listener = listener
        door = Door(
            head_seconds=timeouts.head_seconds,
            reply_idle_seconds=timeouts.reply_idle_seconds,
            connections_max=connections_max,
            ids=ids or RandomIds(),
        )
        config = DoorConfig(
            app,
            door,
            keep_alive_seconds=timeouts.keep_alive_seconds,
            stop_grace_seconds=timeouts.stop_grace_seconds,
        )
        self._server = _Server(config)

    async def run(self) -> None:
        """Serve until `stop`, then let replies in progress end within the grace."""
        try:
            await self._server.serve([self._listener])
        finally:
            self._listener.close()

    async def wait_until_listening(self) -> None:
        """Return once connections are accepted."""
        await self._server.listening.wait()

    def stop(self) -> None:
        """Accept no more connections, and end when the open ones are served. Twice is harmless."""
        self._server.should_exit = True

    def abort(self) -> None:
        """Do not wait for open connections any longer."""
        self._server.should_exit = True
        self._server.force_exit = True
