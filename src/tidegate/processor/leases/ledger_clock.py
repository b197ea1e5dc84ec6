"""What time it is by the ledger's clock, which alone judges deadlines (PROTOCOL 2 and 14)."""

import math
from collections import deque

# A clock that is set by less than an answer takes contradicts none: so many answers later it shows.
ANSWERS_KEPT = 8


class LedgerClock:
    """Learns from the ledger's answers how far its clock is from the event loop's.

    An answer says what the ledger's clock showed at some moment between question and answer, so the
    time is known within bounds: the last `ANSWERS_KEPT` narrow them, but for those that the latest
    contradicts (the clock was set, or this machine slept). All arguments but the ledger's `instant`
    are seconds of the event loop. Before the first answer nothing is known.
    """

    def __init__(self) -> None:
        self._answers: deque[tuple[float, float]] = deque(maxlen=ANSWERS_KEPT)
        self._ahead_min = -math.inf
        self._ahead_max = math.inf

    def hear(self, instant: float, *, asked_at: float, answered_at: float) -> None:
        """Take in that the ledger's clock showed `instant` at some moment between these two."""
        assert asked_at <= answered_at, (asked_at, answered_at)
        self._answers.appendleft((instant - answered_at, instant - asked_at))
        self._ahead_min, self._ahead_max = -math.inf, math.inf
        for ahead_min, ahead_max in self._answers:
            narrowed = max(self._ahead_min, ahead_min), min(self._ahead_max, ahead_max)
            if narrowed[0] > narrowed[1]:
                return
            self._ahead_min, self._ahead_max = narrowed

    def at_least(self, now: float) -> float:
        """Return an instant that the ledger's clock has reached: what is due by it may end."""
        return now + self._ahead_min

    def at_most(self, now: float) -> float:
        """Return an instant that it has not passed: what is open by it may still be sent."""
        return now + self._ahead_max
