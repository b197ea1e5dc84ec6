"""A small HTTP server that lets a function answer: the other end for tests of HTTP upstreams.

It listens on 127.0.0.1, on a free port. A fault that the function raises becomes what brings about
that fault on the other side: silence, a broken connection, or a reply that announces too much.
"""

import asyncio
from collections.abc import Mapping

from typing_extensions import override

from testkit.servers.loopback import LoopbackServer
from tidegate.domain.errors import ReplyTooLarge, TimedOut, UpstreamFault
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import Handler

OWN_HEADERS = frozenset({"content-length", "connection"})


class HandlerServer(LoopbackServer):
    """Serves calls by a handler."""

    def __init__(self, handler: Handler) -> None:
        super().__init__(UpstreamFault)
        self._handler = handler

    @override
    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await self._answer(await _read_call(reader), writer)

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
