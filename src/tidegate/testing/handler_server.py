"""A small HTTP server that lets a function answer: the other end for tests of HTTP upstreams.

It listens on 127.0.0.1, on a free port. A fault that the function raises becomes what brings about
that fault on the other side: silence, a broken connection, or a reply that announces too much.
"""

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from tidegate.domain.errors import ReplyTooLarge, TimedOut, UpstreamFault
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import Handler

HEAD_BYTES_MAX = 256 * 1024
OWN_HEADERS = frozenset({"content-length", "connection"})


class HandlerServer:
    """Serves calls by a handler; `async with` starts and stops it.

    Attributes:
        connections_seen: how many connections were opened to it.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.Event] = {}
        self.connections_seen = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Return the base URL, without a path."""
        return f"http://127.0.0.1:{self.port}"

    async def wait_until_left(self) -> None:
        """Return once no client is connected: whatever they had sent has been read by then."""
        while self._serving:
            await next(iter(self._serving.values())).wait()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
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
        ended = list(self._serving.values())
        for task in self._serving:
            task.cancel()
        for event in ended:
            await event.wait()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections_seen += 1
        task = asyncio.current_task()
        assert task is not None, "served outside a task"
        ended = self._serving[task] = asyncio.Event()
        try:
            while True:
                await self._answer(await _read_call(reader), writer)
        except (UpstreamFault, OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            # Breaking the connection off is all there is to say; the cancel is our own stop.
            return
        finally:
            del self._serving[task]
            writer.transport.abort()
            ended.set()

    async def _answer(self, call: Call, writer: asyncio.StreamWriter) -> None:
        try:
            reply = await self._handler(call)
        except TimedOut:
            await asyncio.Event().wait()
            raise
        except ReplyTooLarge:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999\r\n\r\n")
        else:
            writer.write(_head(reply))
            writer.write(reply.body)
        await writer.drain()


async def _read_call(reader: asyncio.StreamReader) -> Call:
    start, *rows = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    method, path, _ = start.split(" ")
    headers: Mapping[str, str] = {
        name: value for name, _, value in (row.partition(": ") for row in rows if row)
    }
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Call(method=method, path=path, headers=headers, body=body)


def _head(reply: Reply) -> bytes:
    rows = [f"HTTP/1.1 {reply.status} Some Words"]
    rows += [f"{key}: {value}" for key, value in reply.headers.items() if key not in OWN_HEADERS]
    rows += [f"content-length: {len(reply.body)}", "", ""]
    return "\r\n".join(rows).encode("latin-1")
