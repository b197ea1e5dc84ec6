"""When a stopping processor cancels its remaining work: a deadline that bounds its waits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class StopDeadline:
    """Not set at first; may only become earlier. Times are seconds of the event loop."""

    def __init__(self) -> None:
        self.at: float | None = None
        self._scopes: dict[asyncio.Timeout, float] = {}

    def is_set(self) -> bool:
        """Return whether a stop was asked for: no more work is taken."""
        return self.at is not None

    def set(self, grace_seconds: float) -> float:
        """Set the deadline to this long from now, unless it is earlier already; return it."""
        at = asyncio.get_running_loop().time() + grace_seconds
        self.at = at = at if self.at is None else min(self.at, at)
        for scope, after in self._scopes.items():
            if not scope.expired():
                scope.reschedule(at + after)
        return at

    @asynccontextmanager
    async def bounds(self, *, after: float = 0.0) -> AsyncIterator[None]:
        """Raise TimeoutError in the block `after` seconds after the deadline, once that is set."""
        async with asyncio.timeout_at(None if self.at is None else self.at + after) as scope:
            self._scopes[scope] = after
            try:
                yield
            finally:
                del self._scopes[scope]
