"""An upstream behind HTTP/1.1: a pool of our own on the running loop, parsed by llhttp.

Made for many short calls at once: no task and no timer per call, one write per request. A redirect
is a reply like any other; cookies, proxies and compression are not spoken.
"""

import asyncio

from typing_extensions import override

from tidegate.upstreams.base import Call, Reply, Upstream
from tidegate.upstreams.connection import Unanswered
from tidegate.upstreams.headers import RequestHeads
from tidegate.upstreams.pool import Pool
from tidegate.upstreams.settings import HttpSettings


class HttpUpstream(Upstream):
    """Sends calls to one HTTP server."""

    def __init__(self, settings: HttpSettings) -> None:
        """Take the settings; reads the files that `settings.tls` names, opens no connection.

        Raises:
            SettingsInvalid: a file of `settings.tls` can't be used.
        """
        self._total_seconds = settings.timeouts.total_seconds
        self._heads = RequestHeads(settings)
        self._pool = Pool(settings)

    @property
    def pool(self) -> Pool:
        """Return the connections, to be counted."""
        return self._pool

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
        pool = self._pool
        now = pool.now()
        total_due = now + self._total_seconds
        connection = pool.ready(now)
        if connection is None:
            connection = await pool.acquire(total_due)
            now = pool.now()
        waiter = connection.start(head, call, now=now, total_due=total_due)
        try:
            return await waiter
        except Unanswered:
            connection = await pool.acquire(total_due, fresh=True)
        except (asyncio.CancelledError, GeneratorExit):
            connection.abandon(waiter)
            raise
        waiter = connection.start(head, call, now=pool.now(), total_due=total_due)
        try:
            return await waiter
        except (asyncio.CancelledError, GeneratorExit):
            connection.abandon(waiter)
            raise

    @override
    async def aclose(self) -> None:
        """Close every connection; calls under way end with ReplyBroken. Twice is harmless."""
        await self._pool.aclose()
