"""An upstream behind HTTP/1.1: a pool of our own on the running loop, parsed by llhttp.

Made for many short calls at once: no task and no timer per call, one write per request. A redirect
is a reply like any other; cookies and compression are not spoken.
"""

import asyncio
from contextlib import suppress

from typing_extensions import override

from tidegate.upstreams.addresses import Resolve, resolve
from tidegate.upstreams.base import Call, Receiver, Reply, Sending, Unanswered, Upstream
from tidegate.upstreams.headers import RequestHeads
from tidegate.upstreams.pool import Pool
from tidegate.upstreams.settings import HttpSettings
from tidegate.upstreams.tunnel import STATUS_PROXY_CREDENTIALS, refused_credentials
from tidegate.upstreams.waiter import Waiter


class HttpUpstream(Upstream):
    """Sends calls to one HTTP server."""

    def __init__(self, settings: HttpSettings, *, resolve: Resolve = resolve) -> None:
        """Take the settings; reads the files that `settings.tls` names, opens no connection.

        `resolve` finds the addresses of a name.

        Raises:
            SettingsInvalid: a file of `settings.tls` can't be used.
        """
        self._total_seconds = settings.timeouts.total_seconds
        self._heads = RequestHeads(settings)
        self._pool = Pool(settings, resolve)

    @property
    def pool(self) -> Pool:
        """Return the connections, to be counted."""
        return self._pool

    @override
    def begin(self, call: Call, receiver: Receiver) -> Sending | None:
        """Send a call on a connection that is free now, if there is one.

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
        """Send a call and read its whole reply, whatever its status.

        A connection that served before may be closed by the server just as the call is written. If
        so, and not one byte of a reply came, the call is sent once more on a fresh connection: the
        server may then see it twice. It is never replayed otherwise.

        Raises:
            Refused: the call's method, path or headers may not be sent; not one byte was.
            ConnectFailed: not one byte was sent, or TLS was refused.
            TimedOut: a time limit passed.
            ReplyBroken: the connection or the reply broke.
            ReplyTooLarge: a bound was passed.
        """
        head = self._heads.head(call)
        total_due = self._pool.now() + self._total_seconds
        with suppress(Unanswered):
            return await self._carry(head, call, total_due, afresh=False)
        return await self._carry(head, call, total_due, afresh=True)

    @override
    async def send_afresh(self, call: Call) -> Reply:
        """Send a call that was `Unanswered` once more, on a fresh connection."""
        total_due = self._pool.now() + self._total_seconds
        return await self._carry(self._heads.head(call), call, total_due, afresh=True)

    async def _carry(self, head: bytes, call: Call, total_due: float, *, afresh: bool) -> Reply:
        pool = self._pool
        connection = await pool.acquire(total_due, fresh=afresh)
        waiter = Waiter()
        connection.start(head, call, waiter, now=pool.now(), total_due=total_due)
        try:
            return await waiter.future
        except (asyncio.CancelledError, GeneratorExit):
            connection.abandon(waiter)
            waiter.forget()
            raise
        finally:
            # The traceback of a fault holds this frame. Were the fault in turn held from here, each
            # call that fails would keep its body until the collector of cycles next looks.
            del waiter

    @override
    async def aclose(self) -> None:
        """Close every connection; calls under way end with ReplyBroken. Twice is harmless."""
        await self._pool.aclose()


class ProxiedUpstream(HttpUpstream):
    """Sends calls in the clear by way of a proxy, whose own refusals are faults and no replies."""

    def __init__(self, settings: HttpSettings, *, resolve: Resolve = resolve) -> None:
        """Take the settings, which name a proxy."""
        super().__init__(settings, resolve=resolve)
        assert settings.proxied_by is not None, "proxied by no one"
        self._proxy = settings.proxied_by

    @override
    def begin(self, call: Call, receiver: Receiver) -> Sending | None:
        """Leave every call to `send`, which looks at the reply."""
        return None

    @override
    async def send(self, call: Call) -> Reply:
        """Send a call and read its whole reply, as any upstream does.

        Raises:
            ConnectFailed: also where the proxy does not know us: the call went no further.
        """
        reply = await super().send(call)
        if reply.status == STATUS_PROXY_CREDENTIALS:
            raise refused_credentials(self._proxy)
        return reply
