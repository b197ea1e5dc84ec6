"""What the small servers of the tests share: a free port on 127.0.0.1, and a clean end."""

import asyncio
import ssl
from abc import ABC, abstractmethod
from contextlib import suppress
from types import TracebackType
from typing import Self

LINE_BYTES_MAX = 256 * 1024


class LoopbackServer(ABC):
    """Answers each connection by `answer`; `async with` starts and stops it.

    Attributes:
        connections_seen: how many connections were opened to it.
        port: where it listens.
    """

    def __init__(self, *ends: type[Exception], tls: ssl.SSLContext | None = None) -> None:
        """Accept what may end `answer` besides a connection that breaks: it is not reported."""
        self._ends = (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, *ends)
        self._tls = tls
        self._server: asyncio.Server | None = None
        self._serving: dict[asyncio.Task[None], asyncio.Event] = {}
        self.connections_seen = 0
        self.port = 0

    @property
    def url(self) -> str:
        """Return the base URL, without a path."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def open_count(self) -> int:
        """Return how many connections are open."""
        return len(self._serving)

    async def wait_until_left(self) -> None:
        """Return once no client is connected: all that they had sent has been read by then."""
        while self._serving:
            await next(iter(self._serving.values())).wait()

    @abstractmethod
    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Talk over one connection until it ends; it is broken off after that."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._tls, limit=LINE_BYTES_MAX
        )
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
            # Breaking the connection off is all there is to say; the cancel is our own stop.
            with suppress(*self._ends):
                await self.answer(reader, writer)
        finally:
            del self._serving[task]
            writer.transport.abort()
            ended.set()
