"""The wall clock as a port, so that a simulation can control time.

Durations inside one process are measured by the event loop's own `time()`; this clock is for
instants that are stored or compared between processes.
"""

import time
from typing import Protocol


class Clock(Protocol):
    """Returns the wall-clock time."""

    def now(self) -> float:
        """Return Unix seconds. They may jump when the machine's clock is set."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Return Unix seconds."""
        return time.time()
