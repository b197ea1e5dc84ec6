"""How the parts of a processor wake each other: one value that every constructor gets."""

import asyncio
from collections.abc import Callable


class Wakeups:
    """What may have become possible since somebody looked last. A wake-up too many is harmless.

    Attributes:
        work_available: set when the shard loop should look for something to do.
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
        """Wake every loop: it may have to end."""
        self.report_lines_low()
        self.planning_due.set()
        self.finalizing_due.set()

    def report_room(self) -> None:
        """Call whoever waits for room: on the disk, in memory, or for uncommitted lines."""
        for call in self._on_room:
            call()

    def call_on_room(self, call: Callable[[], None]) -> None:
        """Call this whenever room was freed; it must return immediately."""
        self._on_room.append(call)
