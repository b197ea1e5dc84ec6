"""A model server without sockets: each write to one of its connections gets one reply."""

import asyncio

from typing_extensions import override

from tidegate.upstreams.http1.connection import Connection
from tidegate.upstreams.http1.fast_path import FastReplyParser
from tidegate.upstreams.http1.pool import Pool
from tidegate.upstreams.settings import HttpSettings


class CannedServer:
    """Answers requests all together, `latency_seconds` after the first of those that wait.

    Each request must come in one piece, as from the client it is made for.

    Attributes:
        writes: pieces that were written to its connections.
        written: bytes of all of them.
    """

    def __init__(self, reply: bytes, *, latency_seconds: float) -> None:
        self._reply = reply
        self._latency_seconds = latency_seconds
        self._asking: list[Connection] = []
        self.writes = 0
        self.written = 0

    def plug(self, pool: Pool, settings: HttpSettings, count: int) -> None:
        """Give a pool `count` open connections to this server, all of them free."""
        loop = asyncio.get_running_loop()
        for _ in range(count):
            connection = Connection(pool, settings, loop, FastReplyParser(settings.limits))
            connection.connection_made(_CannedTransport(self, connection, loop))
            pool.released(connection)

    def take(self, connection: Connection, size: int) -> None:
        """Take a request from a connection; its reply follows."""
        self.writes += 1
        self.written += size
        if not self._asking:
            asyncio.get_running_loop().call_later(self._latency_seconds, self._answer)
        self._asking.append(connection)

    def _answer(self) -> None:
        asking, self._asking = self._asking, []
        for connection in asking:
            connection.data_received(self._reply)


class _CannedTransport(asyncio.Transport):
    """One end of such a connection."""

    def __init__(
        self, server: CannedServer, connection: Connection, loop: asyncio.AbstractEventLoop
    ) -> None:
        super().__init__()
        self._server = server
        self._connection = connection
        self._loop = loop
        self._closing = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._server.take(self._connection, len(data))

    @override
    def get_write_buffer_size(self) -> int:
        return 0

    @override
    def is_closing(self) -> bool:
        return self._closing

    @override
    def abort(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self._connection.connection_lost, None)
