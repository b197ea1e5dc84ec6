"""Bytes on a connection of the server: each gets whole replies, or none, and it ends in time."""

import asyncio
import random
from dataclasses import dataclass

import httptools
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send
from typing_extensions import override
from uvicorn.server import ServerState

from testkit.fuzz.mutations import CUTS, Edit, cut, edited, edits
from testkit.fuzz.target import Target
from tidegate.http_server.limits import ServerTimeouts
from tidegate.http_server.protocol import BoundedHttpConfig, BoundedHttpProtocol
from tidegate.testing.ids import SeededIds
from tidegate.testing.loop import run_virtual

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
SECONDS_MAX = 900.0
BODY_SECONDS_MAX = 60.0
CUT_BYTES_MAX = 2_000
TELLING = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b":", b" ", b"\x00", b"\xff", b"%", b"%00", b"?", b"#",
    b"content-length: 3\r\n", b"content-length: 99\r\n", b"transfer-encoding: chunked\r\n",
    b"0\r\n\r\n", b"connection: close\r\n", b"host: y\r\n", b"expect: 100-continue\r\n",
    b"HTTP/1.0", b"HTTP/2.0", b"upgrade: websocket\r\nconnection: upgrade\r\n",
    b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"a" * 70_000,
]  # fmt: skip
REQUEST = st.builds(
    lambda method, path, rows, body: b"".join(
        (
            method + b" " + path + b" HTTP/1.1\r\nhost: x\r\n" + b"".join(rows),
            b"content-length: %d\r\n\r\n" % len(body) + body,
        )
    ),
    st.sampled_from([b"GET", b"POST", b"HEAD", b"DELETE"]),
    st.sampled_from([b"/", b"/v1/files?limit=1", b"http://x/v1", b"*", b"/%2e%ff"]),
    st.lists(st.sampled_from([b"a: b\r\n", b"x-request-id: k\r\n"]), max_size=2),
    st.binary(max_size=12),
)


@dataclass(frozen=True, slots=True)
class Knock:
    """What a client sends, in pieces; `gap_seconds` lie between them."""

    requests: list[bytes]
    changes: list[Edit]
    cuts: list[int]
    gap_seconds: float
    reads_all: bool


INPUTS = st.builds(
    Knock,
    st.lists(REQUEST, max_size=3),
    edits(TELLING),
    CUTS,
    st.sampled_from([0.0, 0.01, 4.0]),
    st.booleans(),
)


def check(knock: Knock) -> None:
    """Hold what comes back to HTTP, and the connection to its end."""
    run_virtual(_check(knock))


async def _check(knock: Knock) -> None:
    wire = _Wire(reads=knock.reads_all)
    protocol = _protocol()
    wire.protocol = protocol
    protocol.connection_made(wire)
    data = edited(b"".join(knock.requests), knock.changes)
    for piece in cut(data, [] if len(data) > CUT_BYTES_MAX else knock.cuts):
        if not wire.is_closing():
            protocol.data_received(piece)
            await asyncio.sleep(knock.gap_seconds)
    async with asyncio.timeout(SECONDS_MAX):
        await wire.gone.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    assert not protocol.tasks, "a request outlives its connection"
    assert protocol not in protocol.connections
    _check_written(bytes(wire.written))


def _protocol() -> BoundedHttpProtocol:
    timeouts = ServerTimeouts(stop_grace_seconds=1)
    ids = SeededIds(random.Random(1))
    config = BoundedHttpConfig(_app, timeouts, ids, connections_max=2)
    config.load()
    return BoundedHttpProtocol(config=config, server_state=ServerState(), app_state={})


async def _app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body and say its length; give up as the API does, after some silence."""
    status, body = 200, b""
    try:
        body = b"%d" % await _length(receive)
    except TimeoutError:
        status = 408
    if scope["method"] == "HEAD":
        body = b""
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _length(receive: Receive) -> int:
    size = 0
    more = True
    while more:
        async with asyncio.timeout(BODY_SECONDS_MAX):
            message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    return size


class _Heard:
    """Counts what a client receives."""

    def __init__(self) -> None:
        self.begun = 0
        self.whole = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_message_complete(self) -> None:
        self.whole += 1


def _check_written(data: bytes) -> None:
    """Hold the replies to what any client can read: all of them whole."""
    heard = _Heard()
    # Interim replies announce one that may never come.
    httptools.HttpResponseParser(heard).feed_data(
        data.replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"")
    )
    assert heard.begun == heard.whole, "half a reply"


class _Wire(asyncio.Transport):
    """A connection to a client that reads everything, or nothing at all."""

    def __init__(self, *, reads: bool) -> None:
        super().__init__()
        self.protocol: BoundedHttpProtocol | None = None
        self.gone = asyncio.Event()
        self.written = bytearray()
        self._reads = reads
        self._closing = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self.written += data

    @override
    def get_write_buffer_size(self) -> int:
        return 0 if self._reads else len(self.written)

    @override
    def write_eof(self) -> None:
        return

    @override
    def pause_reading(self) -> None:
        return

    @override
    def resume_reading(self) -> None:
        return

    @override
    def is_closing(self) -> bool:
        return self._closing

    @override
    def close(self) -> None:
        self._closing = True
        if not self.get_write_buffer_size():
            self.abort()

    @override
    def abort(self) -> None:
        self._closing = True
        if not self.gone.is_set() and self.protocol is not None:
            self.gone.set()
            self.protocol.connection_lost(None)


TARGET = Target(name="connections", inputs=INPUTS, check=check)
