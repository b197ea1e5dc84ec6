"""An upstream inside the process: a function answers. No sockets, no threads, no clock."""

from collections.abc import Awaitable, Callable

from typing_extensions import override

from tidegate.domain.errors import ConnectFailed
from tidegate.upstreams.base import Call, Reply, Upstream

Handler = Callable[[Call], Awaitable[Reply]]


class MemoryUpstream(Upstream):
    """Answers calls by `handler`, which returns a reply or raises an `UpstreamFault`.

    Attributes:
        in_flight: calls under way now.
        in_flight_max_seen: the highest number of concurrent calls so far.
        calls_seen: calls that reached the handler.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._closed = False
        self.in_flight = 0
        self.in_flight_max_seen = 0
        self.calls_seen = 0

    @override
    async def send(self, call: Call) -> Reply:
        """Return the handler's reply; cancelling cancels the handler too.

        Raises:
            ConnectFailed: the upstream was closed.
            UpstreamFault: the handler raised it.
        """
        if self._closed:
            raise ConnectFailed(
                "This upstream was closed: nothing can be sent through it any more."
            )
        self.calls_seen += 1
        self.in_flight += 1
        self.in_flight_max_seen = max(self.in_flight_max_seen, self.in_flight)
        try:
            return await self._handler(call)
        finally:
            self.in_flight -= 1

    @override
    async def aclose(self) -> None:
        """Take no more calls. May be called twice."""
        self._closed = True
