"""A server that sends what a test gives it, byte for byte: for tests of clients.

It listens on 127.0.0.1, on a free port. The n-th connection plays the n-th script, later ones play
the last; after its script a connection stays silent until the other side closes it.
"""

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self, assert_never

READ_BYTES = 64 * 1024

_LENGTH = re.compile(rb"^content-length:\s*(\d+)\s*$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """Wait until one more whole request came: a head, and the body of its content-length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadSome:
    """Wait until at least one more byte came."""


@dataclass(frozen=True, slots=True)
class Say:
    """Send bytes, in pieces of `piece_bytes` (0: all at once) with `gap_seconds` between."""

    data: bytes
    piece_bytes: int = 0
    gap_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Await:
    """Wait until the event is set."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True)
class Tell:
    """Set the event."""

    event: asyncio.Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Close the connection in good order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """Break the connection off."""


Step = ReadRequest | ReadSome | Say | Await | Tell | Close | Reset
Script = Sequence[Step]


def plain_reply(body: bytes, *rows: bytes) -> bytes:
    """Return the bytes of a well-formed reply of status 200 with these extra header rows."""
    head = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *rows, b"", b""]
    return b"\r\n".join(head) + body


def answers(*replies: bytes) -> Script:
    """Return the script that answers one request after the other with these bytes."""
    return [step for reply in replies for step in (ReadRequest(), Say(reply))]


class _Ended(Exception):
    """The connection is over; the rest of the script has no one to be played to."""


class HostileServer:
    """Plays scripts; `async with` starts and stops it.

    Attributes:
        received: the bytes of each connection, in the order of opening.
        closed: for each connection an event, set once it is gone.
    """

    def __init__(
        self,
        *scripts: Script,
        tls: ssl.SSLContext | None = None,
        on_tls: Callable[[ssl.SSLObject], None] | None = None,
    ) -> None:
        """Take the scripts; `on_tls` is shown each TLS session once it is agreed on."""
        assert scripts, "a server without a script"
        self._on_tls = on_tls
        self._scripts = scripts
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._players: set[asyncio.Task[None]] = set()
        self.received: list[bytearray] = []
        self.closed: list[asyncio.Event] = []
        self.port = 0

    @property
    def url(self) -> str:
        """Return the base URL, without a path."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._server is not None, "stopped before it was started"
        self._server.close()
        for task in self._players:
            task.cancel()
        for event in self.closed:
            await event.wait()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = self._scripts[min(len(self.received), len(self._scripts) - 1)]
        closed = asyncio.Event()
        player = _Player(reader, writer)
        self.received.append(player.received)
        self.closed.append(closed)
        task = asyncio.current_task()
        assert task is not None, "played outside a task"
        self._players.add(task)
        if self._on_tls is not None:
            session: ssl.SSLObject = writer.get_extra_info("ssl_object")
            self._on_tls(session)
        try:
            for step in script:
                await player.play(step)
            await player.listen_to_the_end()
        except (_Ended, ConnectionError, asyncio.CancelledError):
            # What the other side makes of it is what the test looks at; the cancel is our own stop,
            # and there is no caller to raise it to.
            return
        finally:
            self._players.discard(task)
            writer.transport.abort()
            closed.set()


class _Player:
    """Plays the steps of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._answered = 0
        self.received = bytearray()

    async def play(self, step: Step) -> None:
        match step:
            case ReadRequest():
                await self._read_request()
            case ReadSome():
                await self._read()
            case Say():
                await self._say(step)
            case Await():
                await step.event.wait()
            case Tell():
                step.event.set()
            case Close():
                await self._close()
                raise _Ended
            case Reset():
                self._reset()
                raise _Ended
            case _:
                assert_never(step)

    async def listen_to_the_end(self) -> None:
        while True:
            await self._read()

    async def _read(self) -> None:
        data = await self._reader.read(READ_BYTES)
        if not data:
            raise _Ended
        self.received += data

    async def _read_request(self) -> None:
        while True:
            end = self.received.find(b"\r\n\r\n", self._answered)
            if end >= 0:
                length = _LENGTH.search(self.received, self._answered, end + 2)
                whole = end + 4 + (int(length[1]) if length else 0)
                if len(self.received) >= whole:
                    self._answered = whole
                    return
            await self._read()

    async def _say(self, step: Say) -> None:
        size = step.piece_bytes or max(1, len(step.data))
        for start in range(0, len(step.data), size):
            if start and step.gap_seconds:
                await asyncio.sleep(step.gap_seconds)
            self._writer.write(step.data[start : start + size])
            await self._writer.drain()

    async def _close(self) -> None:
        self._writer.close()
        with suppress(ConnectionError):
            await self._writer.wait_closed()

    def _reset(self) -> None:
        """Make the kernel send a reset in place of an orderly end."""
        linger = struct.pack("ii", 1, 0)
        found: socket.socket = self._writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._writer.transport.abort()
