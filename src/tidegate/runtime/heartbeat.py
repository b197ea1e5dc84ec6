"""How late the event loop runs: the first thing to look at when everything is slow."""

import asyncio
from collections.abc import Callable

BEAT_SECONDS = 0.5


class Heartbeat:
    """A service that measures the lag of the loop's timers, twice a second."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        self._tell = tell
        self._end = asyncio.Event()

    async def run(self) -> None:
        """Tell the lag in seconds until stopped."""
        loop = asyncio.get_running_loop()
        while not self._end.is_set():
            due = loop.time() + BEAT_SECONDS
            try:
                async with asyncio.timeout_at(due):
                    await self._end.wait()
            except TimeoutError:
                self._tell(max(0.0, loop.time() - due))

    def stop(self) -> None:
        """End at once."""
        self._end.set()

    def abort(self) -> None:
        """End at once."""
        self._end.set()
