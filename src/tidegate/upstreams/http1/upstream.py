"""An upstream over HTTP/1.1: a connection pool on the running event loop, parsed by llhttp.

It is made for many short concurrent calls: no task and no timer per call, one write per request. A
redirect is a reply like any other; cookies and compression are not supported.
"""

import asyncio
from contextlib import suppress

from typing_extensions import override

from tidegate.upstreams.base import Call, PendingCall, Receiver, Reply, StaleConnection, Upstream
from tidegate.upstreams.http1.pool import Pool
from tidegate.upstreams.http1.reply_waiter import ReplyWaiter
from tidegate.upstreams.http1.request_head import RequestHeads
from tidegate.upstreams.settings import HttpSettings
from tidegate.upstreams.transport.dns import Resolve, resolve
from tidegate.upstreams.transport.proxy_tunnel import STATUS_PROXY_CREDENTIALS, refused_credentials


class HttpUpstream(Upstream):
    """Sends calls to one HTTP server."""

    def __init__(self, settings: HttpSettings, *, resolve: Resolve = resolve) -> None:
        """Take the settings; read the files that `settings.tls` names, open no connection.

        `resolve` finds the addresses of a name.

        Raises:
            SettingsInvalid: a file of `settings.tls` can't be used.
        """
        self._total_seconds = settings.timeouts.total_seconds
        self._heads = RequestHeads(settings)
        self._pool = Pool(settings, resolve)

    @property
    def pool(self) -> Pool:
        """Return the connection pool, whose counts tests check."""
        return self._pool

    @override
    def begin(self, call: Call, receiver: Receiver) -> PendingCall | None:
        """Send a call on an idle connection; return None if there is none.

        Raises:
            Refused: the call's method, path or headers may not be sent; not one byte was.
        """
        head = self._heads.head(call)
        now = self._pool.now()
        connection = self._pool.ready(now)
        if connection is None:
            return None
        connection.start(head, call, receiver, now=now, total_due=now + self._total_seconds)
        return connection

    @override
    async def send(self, call: Call) -> Reply:
        """Send a call and read its whole reply, of any status.

        The server may close a connection that was used before while the call is being written. If
        so, and no byte of a reply came, the call is sent once more on a new connection; the server
        may then get it twice. A call is never repeated otherwise.

        Raises:
            Refused: the call's method, path or headers may not be sent; not one byte was.
            ConnectFailed: not one byte was sent, or TLS was refused.
            TimedOut: a time limit passed.
            ReplyBroken: the connection or the reply broke.
            ReplyTooLarge: a bound was passed.
        """
        head = self._heads.head(call)
        total_due = self._pool.now() + self._total_seconds
        with suppress(StaleConnection):
            return await self._carry(head, call, total_due, new_connection=False)
        return await self._carry(head, call, total_due, new_connection=True)

    @override
    async def send_on_new_connection(self, call: Call) -> Reply:
        """Send a call that was `StaleConnection` once more, on a new connection."""
        total_due = self._pool.now() + self._total_seconds
        return await self._carry(self._heads.head(call), call, total_due, new_connection=True)

    async def _carry(
        self, head: bytes, call: Call, total_due: float, *, new_connection: bool
    ) -> Reply:
        pool = self._pool
        connection = await pool.acquire(total_due, fresh=new_connection)
        waiter = ReplyWaiter()
        connection.start(head, call, waiter, now=pool.now(), total_due=total_due)
        try:
            return await waiter.future
        except (asyncio.CancelledError, GeneratorExit):
            connection.abandon(waiter)
            waiter.forget()
            raise
        finally:
            # The traceback of a fault holds this frame. If this frame also held the fault, each
            # failed call would keep its body until the next garbage collection.
            del waiter

    @override
    async def aclose(self) -> None:
        """Close every connection; calls under way end with ReplyBroken. May be called twice."""
        await self._pool.aclose()


class ProxiedUpstream(HttpUpstream):
    """Sends calls without TLS through a proxy, whose own refusals are faults and no replies."""

    def __init__(self, settings: HttpSettings, *, resolve: Resolve = resolve) -> None:
        """Take the settings, which name a proxy."""
        super().__init__(settings, resolve=resolve)
        assert settings.proxied_by is not None, "no proxy is set"
        self._proxy = settings.proxied_by

    @override
    def begin(self, call: Call, receiver: Receiver) -> PendingCall | None:
        """Leave every call to `send`, which checks the reply for a refusal of the proxy."""
        return None

    @override
    async def send(self, call: Call) -> Reply:
        """Send a call and read its whole reply, as any upstream does.

        Raises:
            ConnectFailed: also if the proxy refuses our credentials; it did not forward the call.
        """
        reply = await super().send(call)
        if reply.status == STATUS_PROXY_CREDENTIALS:
            raise refused_credentials(self._proxy)
        return reply
