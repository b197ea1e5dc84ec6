"""How late the event loop runs: the first thing to check when everything is slow."""

import asyncio
from collections.abc import Callable

LAG_INTERVAL_SECONDS = 0.5


class LoopLagMonitor:
    """A service that measures the lag of the loop's timers, twice a second."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self._report = report
        self._end = asyncio.Event()

    async def run(self) -> None:
        """Report the lag in seconds until stopped."""
        loop = asyncio.get_running_loop()
        while not self._end.is_set():
            due = loop.time() + LAG_INTERVAL_SECONDS
            try:
                async with asyncio.timeout_at(due):
                    await self._end.wait()
            except TimeoutError:
                self._report(max(0.0, loop.time() - due))

    def stop(self) -> None:
        """End immediately."""
        self._end.set()

    def abort(self) -> None:
        """End immediately."""
        self._end.set()
