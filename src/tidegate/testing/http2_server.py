"""A small HTTP/2 server that lets a function answer: the other end for tests of HTTP/2 upstreams.

It listens on 127.0.0.1, on a free port. A fault that the function raises becomes what brings about
that fault on the other side: silence, a broken reply, or one that announces too much. The protocol
is h2's, from the side of a server: it ends the connection of a client that breaks its rules.
"""

import asyncio
import ssl
from collections.abc import Mapping

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    DataReceived,
    Event,
    RequestReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error
from h2.settings import SettingCodes, Settings
from typing_extensions import override

from tidegate.domain.errors import ReplyTooLarge, TimedOut, UpstreamFault
from tidegate.testing.loopback_server import LoopbackServer
from tidegate.upstreams.base import Call
from tidegate.upstreams.memory import Handler

READ_BYTES = 64 * 1024


class Http2Server(LoopbackServer):
    """Serves calls by a handler.

    Attributes:
        resets: the error codes of the calls that the other side ended.
        reset: set with each of them.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        tls: ssl.SSLContext | None = None,
        settings: Mapping[SettingCodes, int] | None = None,
    ) -> None:
        """Take the handler, and the settings to begin with."""
        super().__init__(ExceptionGroup, H2Error, tls=tls)
        self._handler = handler
        self._settings = dict(settings or {})
        self.resets: list[int] = []
        self.reset = asyncio.Event()

    @override
    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        protocol = H2Connection(H2Configuration(client_side=False))
        protocol.local_settings = Settings(client=False, initial_values=self._settings)
        async with asyncio.TaskGroup() as group:
            guest = _Guest(self, self._handler, protocol, writer, group)
            await guest.listen(reader)
            raise ConnectionResetError("the other side has left")


class _Guest:
    """One connection, and the calls on it."""

    def __init__(
        self,
        server: Http2Server,
        handler: Handler,
        protocol: H2Connection,
        writer: asyncio.StreamWriter,
        group: asyncio.TaskGroup,
    ) -> None:
        self._server = server
        self._handler = handler
        self._protocol = protocol
        self._writer = writer
        self._group = group
        self._heads: dict[int, dict[str, str]] = {}
        self._bodies: dict[int, bytearray] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._widened = asyncio.Event()

    async def listen(self, reader: asyncio.StreamReader) -> None:
        """Take what comes until the other side has no more."""
        self._protocol.initiate_connection()
        self._flush()
        while data := await reader.read(READ_BYTES):
            for event in self._protocol.receive_data(data):
                self._hear(event)
            self._flush()

    def _hear(self, event: Event) -> None:
        match event:
            case RequestReceived():
                self._heads[event.stream_id] = {
                    name.decode(): value.decode("latin-1") for name, value in event.headers
                }
                self._bodies[event.stream_id] = bytearray()
            case DataReceived():
                self._bodies[event.stream_id] += event.data
                self._protocol.acknowledge_received_data(
                    event.flow_controlled_length, event.stream_id
                )
            case StreamEnded():
                number = event.stream_id
                self._tasks[number] = self._group.create_task(
                    self._answer(number), name=f"call {number}"
                )
            case StreamReset():
                self._server.resets.append(int(event.error_code))
                self._server.reset.set()
                if event.stream_id in self._tasks:
                    self._tasks[event.stream_id].cancel()
            case _:
                # Windows are widened by what is made for that, and by new settings.
                self._widened.set()

    async def _answer(self, number: int) -> None:
        head = self._heads.pop(number)
        call = Call(
            method=head[":method"],
            path=head[":path"],
            headers={name: value for name, value in head.items() if not name.startswith(":")},
            body=bytes(self._bodies.pop(number)),
        )
        try:
            reply = await self._handler(call)
        except TimedOut:
            await asyncio.Event().wait()
        except ReplyTooLarge:
            await self._say(number, 200, {"content-length": "99999999999999"}, b"", ends=False)
        except UpstreamFault:
            self._protocol.reset_stream(number, ErrorCodes.INTERNAL_ERROR)
            self._flush()
        else:
            await self._say(number, reply.status, reply.headers, reply.body, ends=True)

    async def _say(
        self, number: int, status: int, headers: Mapping[str, str], body: bytes, *, ends: bool
    ) -> None:
        fields = [(b":status", b"%d" % status)]
        fields += [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        self._protocol.send_headers(number, fields, end_stream=ends and not body)
        rest = memoryview(body)
        while rest:
            room = self._protocol.local_flow_control_window(number)
            size = min(len(rest), room, self._protocol.max_outbound_frame_size)
            if size <= 0:
                self._widened.clear()
                self._flush()
                await self._widened.wait()
                continue
            piece, rest = rest[:size], rest[size:]
            self._protocol.send_data(number, piece, end_stream=ends and not rest)
            self._flush()
            await self._writer.drain()
        self._flush()

    def _flush(self) -> None:
        if data := self._protocol.data_to_send():
            self._writer.write(data)
