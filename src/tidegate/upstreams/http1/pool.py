"""The connections to one upstream: opened on demand, bounded, the last used one reused first.

One timer serves all of them. It is set for the earliest time at which any connection is due, so
that a call costs one comparison and no timer.
"""

import asyncio
import math
from collections import OrderedDict

from tidegate.domain.errors import ConnectFailed, ReplyBroken, TimedOut
from tidegate.upstreams.http1.connection import Connection
from tidegate.upstreams.http1.fast_path import FastReplyParser
from tidegate.upstreams.settings import HttpSettings
from tidegate.upstreams.transport.connector import Connector
from tidegate.upstreams.transport.dns import Resolve, resolve

# Event loops may call a timer early by up to their resolution.
TIMER_SLACK_SECONDS = 0.001

CLOSED = "This upstream was closed: nothing can be sent through it any more."


class Pool:
    """The connections of one upstream, on the event loop that first uses it."""

    def __init__(self, settings: HttpSettings, resolve: Resolve = resolve) -> None:
        self._settings = settings
        self._idle_max = settings.limits.idle_connections_max
        self._connector = Connector(settings, resolve)
        # Kept, because `get_running_loop` costs a system call.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._all: set[Connection] = set()
        self._idle: dict[Connection, None] = {}
        self._unsent: list[Connection] = []
        self._queue: OrderedDict[asyncio.Future[None], None] = OrderedDict()
        self._opening = 0
        self._closed = False
        self._fast_parser = FastReplyParser(settings.limits)
        self._timer: asyncio.TimerHandle | None = None
        self._armed_for = math.inf
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def idle_count(self) -> int:
        """Return how many connections wait for a call."""
        return len(self._idle)

    @property
    def open_count(self) -> int:
        """Return how many connections are open, in use or not."""
        return len(self._all)

    @property
    def queue_length(self) -> int:
        """Return how many calls wait for a connection."""
        return len(self._queue)

    def now(self) -> float:
        """Return the time of the event loop; the first call binds the pool to the running one."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop.time()

    def ready(self, now: float) -> Connection | None:
        """Return an idle connection without waiting; if None, call `acquire`."""
        return None if self._queue else self._take(now)

    async def acquire(self, total_due: float, *, fresh: bool = False) -> Connection:
        """Return an idle connection or open one; wait if `connections_max` are in use.

        Args:
            total_due: the loop's time at which to give up.
            fresh: return no connection that was used before.

        Raises:
            ConnectFailed: it can't be opened.
            TimedOut: opening or waiting took too long.
        """
        has_waited = False
        while True:
            if self._closed:
                raise ConnectFailed(CLOSED)
            if has_waited or not self._queue:
                connection = None if fresh else self._take(self.now())
                if connection is not None:
                    return connection
                if self._has_place():
                    return await self._open(total_due)
                if fresh and self._idle:
                    next(iter(self._idle)).close()
            await self._wait(total_due, first=has_waited)
            has_waited = True

    async def aclose(self) -> None:
        """Close every connection and wait until each is gone. May be called twice."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiter in self._queue:
            if not waiter.done():
                waiter.set_result(None)
        for connection in list(self._all):
            connection.fail(ReplyBroken("The upstream was closed while the call was under way."))
        await self._empty.wait()

    # What connections call.

    def made(self, connection: Connection) -> None:
        """Record that a connection is open."""
        self._all.add(connection)
        self._empty.clear()

    def released(self, connection: Connection) -> None:
        """Keep a connection for another call, or close it if enough are idle."""
        if self._closed or len(self._idle) >= self._idle_max:
            connection.close()
            return
        self._idle[connection] = None
        self._wake()

    def lost(self, connection: Connection) -> None:
        """Forget a connection that is closed."""
        self._all.discard(connection)
        self._idle.pop(connection, None)
        if not self._all:
            self._empty.set()
        self._wake()

    def flush_soon(self, connection: Connection) -> None:
        """Write all calls of one iteration of the loop together.

        The server then wakes up once for many calls and not once for each.
        """
        self._unsent.append(connection)
        if len(self._unsent) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        for connection in unsent:
            connection.flush()

    def watch(self, due: float) -> None:
        """Set the timer to this time of the loop, unless it is set to an earlier one."""
        if due < self._armed_for and not self._closed:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_for = due
            self._timer = asyncio.get_running_loop().call_at(due, self._expire_due)

    def _expire_due(self) -> None:
        now = self.now()
        self._timer = None
        self._armed_for = math.inf
        for connection in list(self._all):
            if connection.due <= now + TIMER_SLACK_SECONDS:
                connection.expire(now + TIMER_SLACK_SECONDS)
        self.watch(min((connection.due for connection in self._all), default=math.inf))

    # Opening and waiting

    def _take(self, now: float) -> Connection | None:
        """Return the usable idle connection that was used last; None if there is none."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if connection.due > now and connection.retires_at > now and connection.is_open:
                return connection
            connection.close()
        return None

    async def _open(self, total_due: float) -> Connection:
        loop = asyncio.get_running_loop()
        self._opening += 1
        try:
            connection = await self._connector.open(
                lambda: Connection(self, self._settings, loop, self._fast_parser), total_due
            )
        finally:
            self._opening -= 1
            self._wake()
        if self._closed:
            connection.close()
            raise ConnectFailed(CLOSED)
        connection.retires_at = loop.time() + self._connector.next_age()
        return connection

    async def _wait(self, total_due: float, *, first: bool) -> None:
        """Wait until a connection may be free; `first` puts the call at the head of the queue."""
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[place] = None
        if first:
            self._queue.move_to_end(place, last=False)
        try:
            async with asyncio.timeout_at(total_due):
                await place
        except TimeoutError as exc:
            raise TimedOut(
                f"No connection to {self._settings.origin.host_header} became free within the "
                "limit (total_seconds, connections_max).",
                phase="total",
            ) from exc
        finally:
            del self._queue[place]
            # A call that came while this one was woken has queued; it may be able to go now.
            if self._idle or self._has_place():
                self._wake()

    def _has_place(self) -> bool:
        return len(self._all) + self._opening < self._settings.limits.connections_max

    def _wake(self) -> None:
        """Wake the first call of the queue."""
        for place in self._queue:
            if not place.done():
                place.set_result(None)
                return
