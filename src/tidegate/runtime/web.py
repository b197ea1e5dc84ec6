"""HTTP in: one listening socket served by uvicorn, as a service that can be stopped.

uvicorn would install signal handlers, name itself in each reply and read headers without a bound;
here it does none of these.
"""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tidegate.domain.errors import SettingsInvalid

HEADER_BYTES_MAX = 64 * 1024
BACKLOG = 2_048
KEEP_ALIVE_SECONDS = 75


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long connections may idle between requests, and linger once the server stops."""

    keep_alive_seconds: int = KEEP_ALIVE_SECONDS
    stop_grace_seconds: int = 10

    def __post_init__(self) -> None:
        if min(self.keep_alive_seconds, self.stop_grace_seconds) < 1:
            raise SettingsInvalid("Server timeouts must be at least 1 second.")


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


class _BoundedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with a bound on the bytes of a request's head."""

    _head_bytes = 0
    _in_head = False

    @override
    def data_received(self, data: bytes) -> None:
        # Only a head that did not end in earlier reads is counted here: bodies pass untouched.
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_BYTES_MAX:
                self.send_400_response("The request's headers are too large.")
                return
        super().data_received(data)

    @override
    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    @override
    def on_headers_complete(self) -> None:
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEADER_BYTES_MAX:
            raise ValueError("the request's headers are too large")
        super().on_headers_complete()


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

    def __init__(self, app: ASGIApp, listener: socket.socket, timeouts: Timeouts) -> None:
        self._listener = listener
        self._server = _Server(
            uvicorn.Config(
                app,
                http=_BoundedHttp,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=timeouts.keep_alive_seconds,
                timeout_graceful_shutdown=timeouts.stop_grace_seconds,
            )
        )

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
