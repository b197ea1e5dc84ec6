"""The wall clock as a port, so that a simulation can own time.

Durations inside one process are measured by the event loop's own `time()`; this clock is for
instants that are written down or compared between processes.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the wall-clock time."""

    def now(self) -> float:
        """Return Unix seconds. May jump when the machine's clock is set."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()
