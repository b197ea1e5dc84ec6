"""An upstream behind HTTP/2: few connections, each of which carries many calls.

The calls go over TLS, or in the clear to a server that is known to speak HTTP/2; there is no
falling back to HTTP/1.1. A redirect is a reply like any other; cookies, compression and pushed
replies are not spoken.
"""

import asyncio

from typing_extensions import override

from tidegate.domain.errors import ConnectFailed, ReplyBroken, TimedOut
from tidegate.upstreams.addresses import Resolve, resolve
from tidegate.upstreams.base import Call, Receiver, Reply, Sending, Unanswered, Upstream
from tidegate.upstreams.http2.connection import Http2Connection
from tidegate.upstreams.http2.faults import NotProcessed
from tidegate.upstreams.http2.heads import RequestFields
from tidegate.upstreams.opening import Opener
from tidegate.upstreams.pool import CLOSED
from tidegate.upstreams.settings import HttpSettings
from tidegate.upstreams.waiter import Waiter

NO_CALLS = "The upstream takes no calls on a new connection: it may be stopping."


class Http2Upstream(Upstream):
    """Sends calls to one HTTP/2 server."""

    def __init__(self, settings: HttpSettings, *, resolve: Resolve = resolve) -> None:
        """Take the settings; reads the files that `settings.tls` names, opens no connection.

        `resolve` finds the addresses of a name.

        Raises:
            SettingsInvalid: a file of `settings.tls` can't be used.
        """
        self._total_seconds = settings.timeouts.total_seconds
        self._fields = RequestFields(settings)
        self.connections = Connections(settings, resolve)

    @override
    def begin(self, call: Call, receiver: Receiver) -> Sending | None:
        """Send a call on a connection that has room now, if there is one.

        Raises:
            Refused: the call's method, path or headers may not be sent; not one byte was.
        """
        head = self._fields.of(call)
        now = asyncio.get_running_loop().time()
        connection = self.connections.ready(now)
        if connection is None:
            return None
        total_due = now + self._total_seconds
        return connection.start(head, call, receiver, now=now, total_due=total_due)

    @override
    async def send(self, call: Call) -> Reply:
        """Send a call and read its whole reply, whatever its status.

        A call that the server did not take, or that met a connection just closing, is sent once
        more; it is never repeated otherwise.

        Raises:
            Refused: the call's method, path or headers may not be sent; not one byte was.
            ConnectFailed: the server can't be reached, or took the call twice not.
            TimedOut: a time limit passed.
            ReplyBroken: the connection or the reply broke.
            ReplyTooLarge: a bound was passed.
        """
        due = asyncio.get_running_loop().time() + self._total_seconds
        try:
            return await self._carry(call, due, afresh=False)
        except Unanswered:
            return await self._carry_again(call, due)

    @override
    async def send_afresh(self, call: Call) -> Reply:
        """Send a call that was `Unanswered` once more."""
        due = asyncio.get_running_loop().time() + self._total_seconds
        return await self._carry_again(call, due)

    async def _carry_again(self, call: Call, total_due: float) -> Reply:
        try:
            return await self._carry(call, total_due, afresh=True)
        except NotProcessed as fault:
            raise ConnectFailed(str(fault)) from fault
        except Unanswered as fault:
            raise ReplyBroken(str(fault)) from fault

    async def _carry(self, call: Call, total_due: float, *, afresh: bool) -> Reply:
        head = self._fields.of(call)
        connection = await self.connections.acquire(total_due, afresh=afresh)
        waiter = Waiter()
        now = asyncio.get_running_loop().time()
        stream = connection.start(head, call, waiter, now=now, total_due=total_due)
        try:
            return await waiter.future
        except (asyncio.CancelledError, GeneratorExit):
            stream.abandon(waiter)
            waiter.forget()
            raise
        finally:
            # Either would lead from this frame, which the traceback of a fault holds, to the fault.
            del stream, waiter

    @override
    async def aclose(self) -> None:
        """Close every connection; calls under way end with ReplyBroken. Twice is harmless."""
        await self.connections.aclose()


class Connections:
    """Keeps the connections of one upstream; one is opened at a time, when all others are full."""

    def __init__(self, settings: HttpSettings, resolve: Resolve) -> None:
        self._settings = settings
        self._opener = Opener(settings, resolve, protocol="h2")
        self._all: set[Http2Connection] = set()
        self._turn = asyncio.Lock()
        self._news = asyncio.Event()
        self._attempts = 0
        self._failed: tuple[int, str] | None = None
        self._closed = False

    @property
    def open_count(self) -> int:
        """Return how many connections are open."""
        return len(self._all)

    def ready(self, now: float) -> Http2Connection | None:
        """Return the emptiest connection with room; None where others wait for one, too."""
        return None if self._turn.locked() else self._emptiest(now)

    async def acquire(self, total_due: float, *, afresh: bool = False) -> Http2Connection:
        """Return a connection with room, opening one where all are full.

        Args:
            total_due: the loop's time at which to give up.
            afresh: rather open one than take one that has served before.

        Raises:
            ConnectFailed: it can't be opened.
            TimedOut: opening or waiting took too long.
        """
        came = self._attempts
        try:
            async with asyncio.timeout_at(total_due):
                await self._turn.acquire()
        except TimeoutError as exc:
            raise self._no_room() from exc
        try:
            # Who waited for others to fail does not fail once more by itself.
            if self._failed is not None and self._failed[0] > came:
                raise ConnectFailed(self._failed[1])
            return await self._find(total_due, afresh=afresh)
        finally:
            self._turn.release()

    async def _find(self, total_due: float, *, afresh: bool) -> Http2Connection:
        loop = asyncio.get_running_loop()
        while not self._closed:
            if not afresh or not self._has_place():
                found = self._emptiest(loop.time())
                if found is not None:
                    return found
            if self._has_place():
                return await self._open(total_due)
            self._news.clear()
            try:
                async with asyncio.timeout_at(total_due):
                    await self._news.wait()
            except TimeoutError as exc:
                raise self._no_room() from exc
        raise ConnectFailed(CLOSED)

    async def _open(self, total_due: float) -> Http2Connection:
        loop = asyncio.get_running_loop()
        self._attempts += 1
        try:
            connection = await self._opener.open(
                lambda: Http2Connection(self, self._settings, loop),
                total_due,
                opened=self._opened,
            )
        except ConnectFailed as fault:
            self._failed = self._attempts, str(fault)
            raise
        except ReplyBroken as exc:
            # Closing ended it before its server had answered.
            raise ConnectFailed(CLOSED) from exc
        self._failed = None
        if self._closed or not connection.has_room(loop.time()):
            connection.close()
            raise ConnectFailed(CLOSED if self._closed else NO_CALLS)
        connection.retires_at = loop.time() + self._opener.next_age()
        return connection

    async def _opened(self, connection: Http2Connection) -> None:
        """Wait until a connection may be used; close it if it never may."""
        try:
            await connection.ready
        except BaseException:
            connection.close()
            raise

    async def aclose(self) -> None:
        """Close every connection and wait until each is gone. Twice is harmless."""
        self._closed = True
        for connection in [*self._all]:
            connection.fail(ReplyBroken("The upstream was closed while the call was under way."))
        while self._all:
            self._news.clear()
            await self._news.wait()
        self._news.set()

    # What connections call.

    def made(self, connection: Http2Connection) -> None:
        """Hear that a connection is open."""
        self._all.add(connection)

    def freed(self) -> None:
        """Let whoever waits look again."""
        self._news.set()

    def lost(self, connection: Http2Connection) -> None:
        """Hear that a connection is closed for good."""
        self._all.discard(connection)
        self._news.set()

    def _emptiest(self, now: float) -> Http2Connection | None:
        free = [connection for connection in [*self._all] if connection.has_room(now)]
        return min(free, key=lambda it: it.call_count, default=None)

    def _has_place(self) -> bool:
        return len(self._all) < self._settings.limits.connections_max

    def _no_room(self) -> TimedOut:
        return TimedOut(
            f"No connection to {self._settings.origin.host_header} had room within the limit "
            "(total_seconds, connections_max, streams_max).",
            phase="total",
        )
