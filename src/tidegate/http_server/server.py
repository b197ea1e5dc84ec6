"""An HTTP server: one listening socket served by uvicorn, as a service that can be stopped.

By default uvicorn installs signal handlers and names itself in each reply; here it does neither.
"""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override

from tidegate.domain.errors import SettingsInvalid
from tidegate.http_server.limits import CONNECTIONS_MAX, ServerTimeouts
from tidegate.http_server.protocol import BoundedHttpConfig
from tidegate.runtime.ids import IdMaker, RandomIds

BACKLOG = 2_048


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Take a port now, so that a conflict is reported before anything else is started.

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


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals alone and sets `listening` once it listens."""

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
        timeouts: ServerTimeouts,
        *,
        connections_max: int = CONNECTIONS_MAX,
        ids: IdMaker | None = None,
    ) -> None:
        """Set the server up; `ids` makes the ids of requests that never reach the application."""
        self._listener = listener
        self._server = _Server(
            BoundedHttpConfig(app, timeouts, ids or RandomIds(), connections_max=connections_max)
        )

    async def run(self) -> None:
        """Serve until `stop`, then finish replies in progress within `stop_grace_seconds`."""
        try:
            await self._server.serve([self._listener])
        finally:
            self._listener.close()

    async def wait_until_listening(self) -> None:
        """Return once connections are accepted."""
        await self._server.listening.wait()

    def stop(self) -> None:
        """Accept no more connections, and end once the open ones are served."""
        self._server.should_exit = True

    def abort(self) -> None:
        """End without waiting for open connections."""
        self._server.should_exit = True
        self._server.force_exit = True
