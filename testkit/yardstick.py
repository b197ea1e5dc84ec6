"""CPU time held against a fixed piece of work: a bound on cost that no slow machine breaks.

The yardstick is plain Python of the kind that carries a line: calls of methods, dictionaries, texts
and bytes. It is run in turn with what is measured, in the same process, and of each the least CPU
time counts. Anything else that runs on the machine only adds to a time, so the least of several is
close to what the work itself costs, and a machine of half the speed doubles both.
"""

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from time import process_time_ns

# About 2 ms: short enough to fit between two interruptions, long enough for the clock.
TURNS_AT_ONCE = 1_000
ROUNDS_MIN = 6
ROUNDS_MAX = 40

# What is carried does not fit the nearest caches, so neither may the yardstick: neighbours that
# fill them then slow down both.
_BODY_BYTES = 1_024

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n"


class _Parcel:
    """Something with a name and a state, passed from hand to hand."""

    __slots__ = ("body", "head", "number", "state")

    def __init__(self, number: int) -> None:
        self.number = number
        self.body = b"%d" % number * (_BODY_BYTES // len(str(number)))
        self.state = "new"
        self.head: dict[str, str] = {}

    def open(self, data: bytes) -> int:
        self.head = dict(_pair(line) for line in data[: data.find(b"\r\n\r\n")].split(b"\r\n")[1:])
        self.state = "open"
        return int(self.head["content-length"])

    def close(self, seen: dict[str, int]) -> bytes:
        name = f"parcel_{self.number}_{self.state}"
        seen[name] = seen.get(name, 0) + self.number
        self.state = "closed"
        return b"".join([b'{"name":"', name.encode(), b'","body":"', self.body, b'"}\n'])


def _pair(line: bytes) -> tuple[str, str]:
    name, _, value = line.partition(b": ")
    return name.decode("ascii"), value.decode("ascii")


def turns(count: int) -> int:
    """Do `count` turns of the yardstick's work; return a number that depends on all of it."""
    seen: dict[str, int] = {}
    waiting = [_Parcel(number) for number in range(count)]
    total = sum([parcel.open(_HEAD) for parcel in waiting])
    lines = [parcel.close(seen) for parcel in waiting]
    return total + len(seen) + sum([len(line) for line in lines])


class Scales:
    """Holds what was measured against the yardstick, best of all rounds so far.

    Attributes:
        rounds: how many there were.
    """

    def __init__(self) -> None:
        self.rounds = 0
        self._turn_ns = float("inf")
        self._least_ns: dict[str, float] = {}

    def round(self, measure: Callable[[], Mapping[str, float]]) -> None:
        """Measure once. `measure` returns nanoseconds of CPU time for one item, by name."""
        with _without_collector():
            self._run_yardstick()
            for name, cost_ns in measure().items():
                self._least_ns[name] = min(cost_ns, self._least_ns.get(name, cost_ns))
            self._run_yardstick()
        self.rounds += 1

    def _run_yardstick(self) -> None:
        begun = process_time_ns()
        turns(TURNS_AT_ONCE)
        self._turn_ns = min(self._turn_ns, (process_time_ns() - begun) / TURNS_AT_ONCE)

    @property
    def ratios(self) -> dict[str, float]:
        """Return what one item costs by name, in turns of the yardstick."""
        return {name: cost_ns / self._turn_ns for name, cost_ns in self._least_ns.items()}


def weigh(
    measure: Callable[[], Mapping[str, float]],
    bounds: Mapping[str, float],
    *,
    rounds_min: int = ROUNDS_MIN,
    rounds_max: int = ROUNDS_MAX,
) -> dict[str, float]:
    """Measure until every ratio lies within its bound, or it is certain that one does not.

    Args:
        measure: returns nanoseconds of CPU time for one item, by name.
        bounds: the most that one item may cost by name, in turns of the yardstick.
        rounds_min: how many rounds to run even if all is well at once.
        rounds_max: when to give up.

    Returns:
        What one item costs, in turns of the yardstick: above a bound where it is too dear.
    """
    assert 0 < rounds_min <= rounds_max, (rounds_min, rounds_max)
    scales = Scales()
    while scales.rounds < rounds_min or (scales.rounds < rounds_max and _over(scales, bounds)):
        scales.round(measure)
    assert scales.ratios.keys() == bounds.keys(), "measured is what has a bound"
    return scales.ratios


def _over(scales: Scales, bounds: Mapping[str, float]) -> bool:
    return any(ratio > bounds[name] for name, ratio in scales.ratios.items())


@contextmanager
def _without_collector() -> Iterator[None]:
    """Keep the collector of cycles out: how long it takes depends on all that the process holds."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
