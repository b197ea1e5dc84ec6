"""A small HTTP proxy: tunnels and calls in the clear, for tests of what goes through one.

It listens on 127.0.0.1, on a free port, and goes wherever `routes` leads a name to.
"""

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from typing_extensions import override

from testkit.servers.loopback import LoopbackServer

READ_BYTES = 64 * 1024
HEAD_END = b"\r\n\r\n"
UNKNOWN = b"HTTP/1.1 407 Who Are You\r\nproxy-authenticate: Basic\r\ncontent-length: 0\r\n\r\n"
NOWHERE = b"HTTP/1.1 502 Nobody There\r\ncontent-length: 0\r\n\r\n"

_LENGTH = re.compile(r"^content-length: ?([0-9]+)\r$", re.IGNORECASE | re.MULTILINE)


class HttpProxy(LoopbackServer):
    """Passes on what it is sent.

    Attributes:
        heads: the head of each request as it came.
    """

    def __init__(
        self, routes: Mapping[str, int], *, user: str | None = None, password: str = ""
    ) -> None:
        """Take the ports on 127.0.0.1 by `host:port`, and who is let through (None: everybody)."""
        super().__init__()
        self._routes = routes
        self._wanted: str | None = None
        if user is not None:
            pair = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._wanted = f"proxy-authorization: Basic {pair}"
        self.heads: list[str] = []

    @override
    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = (await reader.readuntil(HEAD_END)).decode("latin-1")
            self.heads.append(head)
            start, *rows = head.split("\r\n")
            if self._wanted is not None and self._wanted not in rows:
                await _say(writer, UNKNOWN)
                continue
            method, target, _ = start.split(" ")
            parts = urlsplit(f"//{target}" if method == "CONNECT" else target)
            port = self._routes.get(f"{parts.hostname}:{parts.port or 80}")
            if port is None:
                await _say(writer, NOWHERE)
                continue
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                if method == "CONNECT":
                    await _say(writer, b"HTTP/1.1 200 Connection established\r\n\r\n")
                    await _tunnel((reader, far_writer), (far_reader, writer))
                    return
                kept = [row for row in rows if not row.startswith("proxy-")]
                head = "\r\n".join([f"{method} {parts.path} HTTP/1.1", *kept])
                await _say(far_writer, head.encode("latin-1"))
                await _copy_body(head, reader, far_writer)
                reply = await far_reader.readuntil(HEAD_END)
                await _say(writer, reply)
                await _copy_body(reply.decode("latin-1"), far_reader, writer)
            finally:
                far_writer.transport.abort()


async def _say(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _copy_body(head: str, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    length = _LENGTH.search(head)
    missing = int(length[1]) if length is not None else 0
    while missing:
        data = await source.read(min(missing, READ_BYTES))
        if not data:
            raise ConnectionResetError("the rest of a body is missing")
        missing -= len(data)
        await _say(target, data)


Way = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _tunnel(there: Way, back: Way) -> None:
    with contextlib.suppress(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(_pipe(*there), name="there")
            group.create_task(_pipe(*back), name="back")


async def _pipe(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Pass bytes on until there are no more; then break both ways off."""
    while data := await source.read(READ_BYTES):
        target.write(data)
        await target.drain()
    raise ConnectionResetError("the other side has left")
