"""Limits the requests in flight at one endpoint: additive increase, multiplicative decrease.

The design is TCP's congestion avoidance (Chiu and Jain, 1989; RFC 5681): the limit rises by `step`
for each full window of successes and is multiplied by `factor` on overload, at most once per round
trip: a refusal counts only if its request was sent after the last decrease.

Settings and the learned limit are for all processes together; each uses its part. No part is larger
than its part of the highest limit, so all parts never sum to more than that.
"""

from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from tidegate.domain.errors import SettingsInvalid
from tidegate.domain.share import part_of

NOTHING_SECONDS = 10.0


@mypyc_attr(native_class=False)  # the settings are built from its annotations
@dataclass(frozen=True, slots=True, kw_only=True)
class AimdSettings:
    """Bounds and gains of one endpoint's limit, in requests in flight of all processes together.

    `start` is kept within `min` and `max`, so that setting one bound alone is enough.
    """

    start: int = 16
    min: int = 1
    max: int = 256
    step: float = 1.0
    factor: float = 0.7

    def __post_init__(self) -> None:
        if not 1 <= self.min <= self.max or self.start < 1:
            raise SettingsInvalid("concurrency needs 1 <= min <= max, and start at least 1.")
        if not 0.0 < self.factor < 1.0 or self.step <= 0.0:
            raise SettingsInvalid("concurrency needs 0 < factor < 1, and step above 0.")


class Aimd:
    """One adaptive limit, and this process's part of it. Times are seconds of the event loop.

    Attributes:
        limit: how many requests may be in flight here; 0 if other processes have all of it.
        in_flight: how many are in flight here.
    """

    def __init__(self, settings: AimdSettings) -> None:
        self._settings = settings
        self._limit = float(min(max(settings.start, settings.min), settings.max))
        self._decreased_at = float("-inf")
        self._rank = 0
        self._count = 1
        self.in_flight = 0
        self.limit = 0
        self._set(self._limit)

    def _set(self, limit: float) -> None:
        # Computed here, because it is read with every line and seldom changes.
        self._limit = limit
        self.limit = part_of(int(limit), rank=self._rank, count=self._count)

    def share(self, *, rank: int, count: int, now: float) -> None:
        """Use the part of number `rank` of `count` from now on. Called at every poll.

        A process without a part sends nothing, so its limit could never rise. It gets one request
        again `NOTHING_SECONDS` after the last decrease, if the highest limit has a part for it.
        """
        self._rank, self._count = rank, count
        enough = float(rank + 1)
        if self._limit < enough <= self._settings.max and (
            now - self._decreased_at >= NOTHING_SECONDS
        ):
            self._limit = enough
        self._set(self._limit)

    @property
    def has_room(self) -> bool:
        """Whether one more request may start."""
        return self.in_flight < self.limit

    def start(self) -> int:
        """Count a request that begins; return how many are in flight with it."""
        self.in_flight += 1
        return self.in_flight

    def finish(self) -> None:
        """Count a request that ended, however it ended."""
        assert self.in_flight > 0, "a request ended that never began"
        self.in_flight -= 1

    def on_success(self, in_flight: int) -> None:
        """Record a served request, sent when `in_flight` were in flight, itself included.

        The limit rises only if at least half of it was in use then. The number in flight when the
        reply is handled does not count, because the slot may be free already.

        A full window here counts for one of each process, so the limit rises as fast with several.
        """
        if in_flight * 2 >= self.limit:
            if self._limit >= self._settings.max:
                return
            grown = self._limit + self._settings.step * self._count / self._limit
            self._set(min(float(self._settings.max), grown))

    def on_overload(self, sent_at: float, now: float) -> bool:
        """Record a refusal of a request sent at `sent_at`; return whether the limit was lowered."""
        if sent_at <= self._decreased_at:
            return False
        self._decreased_at = now
        self._set(max(float(self._settings.min), self._limit * self._settings.factor))
        return True
