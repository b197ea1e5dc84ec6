"""The time by the ledger's clock, which alone decides deadlines (PROTOCOL 2 and 14)."""

import math
from collections import deque

# Old answers are dropped, because setting a clock by a little contradicts none of them.
ANSWERS_KEPT = 8


class LedgerClock:
    """Estimates the ledger's clock from its answers.

    An answer holds the ledger's time at some moment between question and answer, so the time is
    known within bounds. The last `ANSWERS_KEPT` answers narrow them, except those that contradict
    the latest (the clock was set, or this machine slept). All arguments but the ledger's `instant`
    are seconds of the event loop. Before the first answer nothing is known.
    """

    def __init__(self) -> None:
        self._answers: deque[tuple[float, float]] = deque(maxlen=ANSWERS_KEPT)
        self._ahead_min = -math.inf
        self._ahead_max = math.inf

    def record(self, instant: float, *, asked_at: float, answered_at: float) -> None:
        """Record that the ledger's clock showed `instant` at some moment between these two."""
        assert asked_at <= answered_at, (asked_at, answered_at)
        self._answers.appendleft((instant - answered_at, instant - asked_at))
        self._ahead_min, self._ahead_max = -math.inf, math.inf
        for ahead_min, ahead_max in self._answers:
            narrowed = max(self._ahead_min, ahead_min), min(self._ahead_max, ahead_max)
            if narrowed[0] > narrowed[1]:
                return
            self._ahead_min, self._ahead_max = narrowed

    def at_least(self, now: float) -> float:
        """Return an instant that the ledger's clock has reached: a batch due by it may end."""
        return now + self._ahead_min

    def at_most(self, now: float) -> float:
        """Return an instant that it has not passed: a batch open by it may still be sent."""
        return now + self._ahead_max
