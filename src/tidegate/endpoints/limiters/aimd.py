"""How much may be in flight at once at one endpoint: additive increase, multiplicative decrease.

The design is the one of TCP's congestion avoidance (Chiu and Jain, 1989; RFC 5681): up by `step`
for each full window of successes, down by `factor` on overload, and down at most once for each
round trip: a refusal only counts if its request was sent after the last decrease.

Settings and what is learned are meant for all processes together; each uses its part. No part is
larger than that of the highest limit, so that the parts of all never sum to more than that.
"""

from dataclasses import dataclass

from mypy_extensions import mypyc_attr

from tidegate.domain.errors import SettingsInvalid
from tidegate.domain.share import part_of

NOTHING_SECONDS = 10.0


@mypyc_attr(native_class=False)  # the settings build it from what it says of itself
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
    """One adaptive limit, and the part of it that is ours. Times are seconds of the event loop.

    Attributes:
        limit: how many requests may be in flight here; 0 where others may use it all.
        in_flight: how many are.
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
        # Worked out here, since it is asked for with every line and seldom changes.
        self._limit = limit
        self.limit = part_of(int(limit), rank=self._rank, count=self._count)

    def share(self, *, rank: int, count: int, now: float) -> None:
        """Use the part of number `rank` of `count` from now on. Called again and again.

        Who has no part learns nothing by which its limit could grow. So it tries one request again
        `NOTHING_SECONDS` after the last decrease, if the highest limit has a part for it.
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
        """Say whether one more request may start."""
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

        The limit grows only if at least half of it was in use then. How many are in flight when
        the reply is handled does not count: the slot may have been given back by that time.

        A full window of ours stands for one of each process: with several the limit grows as fast.
        """
        if in_flight * 2 >= self.limit:
            if self._limit >= self._settings.max:
                return
            grown = self._limit + self._settings.step * self._count / self._limit
            self._set(min(float(self._settings.max), grown))

    def on_overload(self, sent_at: float, now: float) -> bool:
        """Hear that a request sent at `sent_at` was refused; say whether the limit went down."""
        if sent_at <= self._decreased_at:
            return False
        self._decreased_at = now
        self._set(max(float(self._settings.min), self._limit * self._settings.factor))
        return True
