"""When requests come: seeded processes that yield seconds from the start, in order, without end."""

import csv
import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice, takewhile
from pathlib import Path

from tidegate.domain.errors import SettingsInvalid

DAY_SECONDS = 86_400.0


def poisson(rate: float, chance: random.Random) -> Iterator[float]:
    """Yield the times of independent arrivals, `rate` of them a second on average."""
    if rate <= 0:
        raise SettingsInvalid(f"An arrival rate must be above 0, not {rate:g}.")
    now = 0.0
    while True:
        now += chance.expovariate(rate)
        yield now


def bursts(
    rate: float, chance: random.Random, *, size: int, spread_seconds: float = 0.0
) -> Iterator[float]:
    """Yield arrivals that come `size` together, `rate` bursts a second on average.

    Those of one burst are spread evenly at random over `spread_seconds`; a burst may overtake the
    one before it.
    """
    if size < 1:
        raise SettingsInvalid(f"A burst has at least one arrival, not {size}.")
    waiting: list[float] = []
    for start in poisson(rate, chance):
        ready = sorted(time for time in waiting if time <= start)
        yield from ready
        waiting = [time for time in waiting if time > start]
        waiting += [start + chance.uniform(0.0, spread_seconds) for _ in range(size)]


def tide(
    mean_rate: float,
    chance: random.Random,
    *,
    swing: float = 0.8,
    period_seconds: float = DAY_SECONDS,
    high_at_seconds: float = DAY_SECONDS * 14 / 24,
) -> Iterator[float]:
    """Yield arrivals whose rate goes up and down like a day's traffic.

    The rate at time t is `mean_rate * (1 + swing * cos(2 pi (t - high) / period))`; arrivals are
    drawn by thinning a faster Poisson process (Lewis and Shedler, 1979).
    """
    if not 0.0 <= swing <= 1.0:
        raise SettingsInvalid(f"A swing must be from 0 to 1, not {swing:g}.")
    most = mean_rate * (1.0 + swing)
    for now in poisson(most, chance):
        phase = 2.0 * math.pi * (now - high_at_seconds) / period_seconds
        if chance.random() * most < mean_rate * (1.0 + swing * math.cos(phase)):
            yield now


def until(times: Iterable[float], end_seconds: float) -> Iterator[float]:
    """Yield the times before an end."""
    return takewhile(lambda time: time < end_seconds, times)


def first(times: Iterable[float], count: int) -> Iterator[float]:
    """Yield `count` times."""
    return islice(times, count)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One request of a trace. `at` is seconds from its start."""

    at: float
    prompt_tokens: int
    output_tokens: int


def read_trace(path: Path) -> list[Recorded]:
    """Read a CSV with the columns `at`, `prompt_tokens` and `output_tokens`, sorted by time.

    Raises:
        SettingsInvalid: it can't be read, a column is missing, or a value is no number.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise SettingsInvalid(f"The trace {path} can't be read ({error.strerror}).") from error
    found = [_recorded(row, path, number) for number, row in enumerate(rows)]
    return sorted(found, key=lambda recorded: recorded.at)


def _recorded(row: dict[str, str], path: Path, number: int) -> Recorded:
    try:
        recorded = Recorded(
            at=float(row["at"]),
            prompt_tokens=int(row["prompt_tokens"]),
            output_tokens=int(row["output_tokens"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise SettingsInvalid(
            f"Line {number + 2} of the trace {path} needs numbers in the columns at, "
            "prompt_tokens and output_tokens."
        ) from error
    if recorded.at < 0 or min(recorded.prompt_tokens, recorded.output_tokens) < 1:
        raise SettingsInvalid(
            f"Line {number + 2} of the trace {path}: at must be 0 or later, and both counts of "
            "tokens at least 1."
        )
    return recorded
