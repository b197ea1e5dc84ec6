"""What time it is by the ledger's clock, which alone judges deadlines (PROTOCOL 2 and 14)."""

import math


class LedgerTime:
    """Learns from the ledger's answers how far its clock is from the event loop's.

    An answer says what the ledger's clock showed at some moment between question and answer, so the
    time is known within bounds: answers that agree narrow them, and one that contradicts them (the
    clock was set, or this machine slept) replaces them. All arguments but the ledger's `instant`
    are seconds of the event loop. Before the first answer nothing is known.
    """

    def __init__(self) -> None:
        self._ahead_min = -math.inf
        self._ahead_max = math.inf

    def hear(self, instant: float, *, asked_at: float, answered_at: float) -> None:
        """Take in that the ledger's clock showed `instant` at some moment between these two."""
        assert asked_at <= answered_at, (asked_at, answered_at)
        ahead_min = max(self._ahead_min, instant - answered_at)
        ahead_max = min(self._ahead_max, instant - asked_at)
        if ahead_min > ahead_max:
            ahead_min, ahead_max = instant - answered_at, instant - asked_at
        self._ahead_min, self._ahead_max = ahead_min, ahead_max

    def at_least(self, now: float) -> float:
        """Return an instant that the ledger's clock has reached: what is due by it may end."""
        return now + self._ahead_min

    def at_most(self, now: float) -> float:
        """Return an instant that it has not passed: what is open by it may still be sent."""
        return now + self._ahead_max
