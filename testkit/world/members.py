"""Which processors are members, by an account beside the ledger: they share limits."""

import asyncio
import math

from tidegate.runtime.clock import Clock


class MemberAccount:
    """Records each renewal and leave, and knows since when the same processors have been counted.

    Who dies is counted until its last beat has run out, which may be long after its successor
    has begun: whose part is whose changes once more then. `clock` is the ledger's.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[str, float] = {}
        self._same_since = -math.inf

    async def after_renew_membership(
        self, _answer: None, owner: str, *, lease_seconds: float
    ) -> None:
        """Record that a processor is counted, perhaps for the first time."""
        self._forget_dead()
        if owner not in self._until:
            self._changed(0.0)
        self._until[owner] = self._clock.now() + lease_seconds

    async def after_leave(self, _answer: None, owner: str) -> None:
        """Record that one is counted no more."""
        self._forget_dead()
        if self._until.pop(owner, None) is not None:
            self._changed(0.0)

    @property
    def same_since(self) -> float:
        """Return since when nobody has come or gone, in loop time."""
        self._forget_dead()
        return self._same_since

    def _forget_dead(self) -> None:
        now = self._clock.now()
        for owner, until in list(self._until.items()):
            if until <= now:
                del self._until[owner]
                self._changed(now - until)

    def _changed(self, seconds_ago: float) -> None:
        at = asyncio.get_running_loop().time() - seconds_ago
        self._same_since = max(self._same_since, at)
