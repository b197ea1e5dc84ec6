"""How the parts of a processor wake each other."""

import asyncio
from collections.abc import Callable


class Wakeups:
    """Events for work that may have become possible. A wake-up too many is harmless.

    Attributes:
        work_available: set when the shard loop should poll for work.
        lines_low: set when a model has few lines left that could be sent.
        planning_due, finalizing_due: set when a batch could be claimed for it.
    """

    def __init__(self) -> None:
        self.work_available = asyncio.Event()
        self.lines_low = asyncio.Event()
        self.planning_due = asyncio.Event()
        self.finalizing_due = asyncio.Event()
        self._on_room: list[Callable[[], None]] = []

    def report_lines_low(self) -> None:
        """Wake the shard loop, also while it waits because enough lines are ready."""
        self.lines_low.set()
        self.work_available.set()

    def report_stop(self) -> None:
        """Wake every loop, because it may have to end."""
        self.report_lines_low()
        self.planning_due.set()
        self.finalizing_due.set()

    def report_room(self) -> None:
        """Call the callbacks: there is room on the disk, in memory, or for more lines."""
        for call in self._on_room:
            call()

    def call_on_room(self, call: Callable[[], None]) -> None:
        """Register a callback for freed room; it must return immediately."""
        self._on_room.append(call)
