"""A histogram that is quick to fill, and is put into words when it is asked for."""

from bisect import bisect_left
from collections.abc import Iterator, Sequence

TIMES_TO_FIRST = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
TIMES_BETWEEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0),
)
TIMES_OF_REQUESTS = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0),
    *(240.0, 480.0, 960.0, 1920.0, 7680.0),
)
TOKENS_OF_STEPS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
CHOICES = (1, 2, 5, 10, 20)
PREEMPTIONS = (1, 2, 3, 4, 5, 10, 20)


def one_two_five(largest: int) -> tuple[int, ...]:
    """Return 1, 2, 5, 10, 20, 50 and so on, up to a number."""
    found: list[int] = []
    power = 1
    while True:
        for factor in (1, 2, 5):
            if factor * power > largest:
                return tuple(found)
            found.append(factor * power)
        power *= 10


class Histogram:
    """Counts of what was seen, by bucket. A value at a bound belongs below it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def see(self, value: float, times: int = 1) -> None:
        """Count a value, once or several times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    def fill(self, counts: Sequence[int]) -> None:
        """Count this many values in each bucket; missing last buckets have none.

        They count for the sum as if they were at the bound, and those above all bounds at the last.
        """
        for bucket, count in enumerate(counts[: len(self.counts)]):
            self.counts[bucket] += count
            self.total += count * self.bounds[min(bucket, len(self.bounds) - 1)]

    def see_evenly(self, first: float, last: float, count: int, times: int) -> None:
        """Count values that go evenly from the first to the last, each `times` times."""
        low, high = bisect_left(self.bounds, first), bisect_left(self.bounds, last)
        self.total += (first + last) / 2 * count * times
        if low == high or count == 1:
            self.counts[low] += count * times
            return
        step = (last - first) / (count - 1)
        done = 0
        for bucket in range(low, high):
            below = min(count, int((self.bounds[bucket] - first) / step) + 1)
            self.counts[bucket] += (below - done) * times
            done = below
        self.counts[high] += (count - done) * times

    def lines(self, name: str, labels: str) -> Iterator[str]:
        """Yield the samples; `labels` are `name="value"` pairs with a comma after each."""
        so_far = 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            so_far += count
            edge = "+Inf" if bound is None else repr(float(bound))
            yield f'{name}_bucket{{{labels}le="{edge}"}} {float(so_far)}'
        bare = f"{{{labels.rstrip(',')}}}" if labels else ""
        yield f"{name}_count{bare} {float(so_far)}"
        yield f"{name}_sum{bare} {self.total!r}"
