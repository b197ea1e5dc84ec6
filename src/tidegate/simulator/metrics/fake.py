"""Metrics that somebody makes up: constants, and curves over time. Nothing of them is true.

The form is that of the field's simulator: `running-requests`, `waiting-requests` and
`kv-cache-usage` are a number or a curve (`ramp:0:100:30s`), and members that end in
`-buckets-values` say how many values each bucket of a histogram holds.
"""

import math
import re
from collections.abc import Callable, Iterator

import msgspec

from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.metrics.families import HISTOGRAMS
from tidegate.simulator.metrics.histogram import Histogram, one_two_five

_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_PERIOD = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|)$")
_PARTS = 4
VALUES_MAX = 10_000


class Lora(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Adapters of running and of waiting requests, with commas between, at a Unix time."""

    running: str = ""
    waiting: str = ""
    timestamp: float = 0.0


class FakeMetrics(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, rename="kebab"
):
    """Values that are shown in place of the measured ones; everything that is not given is 0.

    The members that end in `_buckets_values` count the values of each bucket; the three lists
    of tokens hold the values themselves. `histograms` says the counts for any family by its name.
    """

    running_requests: float | str = 0
    waiting_requests: float | str = 0
    kv_cache_usage: float | str = 0
    ttft_buckets_values: list[int] = []
    tpot_buckets_values: list[int] = []
    itl_buckets_values: list[int] = []
    e2erl_buckets_values: list[int] = []
    queue_time_buckets_values: list[int] = []
    infer_time_buckets_values: list[int] = []
    prefill_time_buckets_values: list[int] = []
    decode_time_buckets_values: list[int] = []
    request_prompt_tokens: list[int] = []
    request_generation_tokens: list[int] = []
    request_params_max_tokens: list[int] = []
    request_success_total: dict[str, int] = {}
    prefix_cache_hits: int = 0
    prefix_cache_queries: int = 0
    loras: list[Lora] = []
    histograms: dict[str, list[int]] = {}

    def __post_init__(self) -> None:
        for shown in (self.running_requests, self.waiting_requests):
            curve_of(shown)
        if curve_of(self.kv_cache_usage).peak > 1:
            raise ValueError("kv-cache-usage is from 0 to 1")
        counters = (self.prefix_cache_hits, self.prefix_cache_queries)
        if min(*counters, 0, *self.request_success_total.values()) < 0:
            raise ValueError("counters can't be less than 0")
        for name, counts in self.counts():
            _check_counts(name, counts)
        for name, values in self.values():
            if len(values) > VALUES_MAX:
                raise ValueError(f"{name} has {VALUES_MAX} values at most")

    def counts(self) -> Iterator[tuple[str, list[int]]]:
        """Yield the counts of buckets by the name of the family."""
        yield from {
            "time_to_first_token_seconds": self.ttft_buckets_values,
            "inter_token_latency_seconds": self.itl_buckets_values or self.tpot_buckets_values,
            "request_time_per_output_token_seconds": self.tpot_buckets_values,
            "e2e_request_latency_seconds": self.e2erl_buckets_values,
            "request_queue_time_seconds": self.queue_time_buckets_values,
            "request_inference_time_seconds": self.infer_time_buckets_values,
            "request_prefill_time_seconds": self.prefill_time_buckets_values,
            "request_decode_time_seconds": self.decode_time_buckets_values,
            **self.histograms,
        }.items()

    def values(self) -> Iterator[tuple[str, list[int]]]:
        """Yield single values by the name of the family."""
        yield "request_prompt_tokens", self.request_prompt_tokens
        yield "request_generation_tokens", self.request_generation_tokens
        yield "request_params_max_tokens", self.request_params_max_tokens

    def filled(self, length_max: int) -> dict[str, Histogram]:
        """Return every histogram of vLLM with what was said for it."""
        lengths = one_two_five(length_max)
        found = {
            name: Histogram(lengths if bounds is None else bounds)
            for name, (bounds, _) in HISTOGRAMS.items()
        }
        for name, counts in self.counts():
            found[name].fill(counts)
        for name, values in self.values():
            for value in values:
                found[name].see(value)
        return found


def fakes_from(text: str) -> FakeMetrics:
    """Return what a flag says.

    Raises:
        SettingsInvalid: it is not JSON, or not acceptable.
    """
    try:
        return msgspec.json.decode(text, type=FakeMetrics)
    except msgspec.MsgspecError as error:
        raise SettingsInvalid(f"--fake-metrics is not acceptable: {error}.") from error


def _check_counts(name: str, counts: list[int]) -> None:
    if name not in HISTOGRAMS:
        raise ValueError(f"there is no histogram {name}")
    bounds = HISTOGRAMS[name][0]
    if bounds is not None and len(counts) > len(bounds) + 1:
        raise ValueError(f"{name} has {len(bounds) + 1} buckets")
    if min(counts, default=0) < 0:
        raise ValueError(f"{name} can't have fewer than 0 values in a bucket")


class Curve(msgspec.Struct, frozen=True):
    """A number that changes between two others; `name` says how, `period` is in seconds."""

    start: float
    end: float
    period: float = 1.0
    name: str = "ramp"

    @property
    def peak(self) -> float:
        """Return the largest number that it comes to."""
        return max(self.start, self.end)

    def at(self, seconds: float) -> float:
        """Return the number `seconds` after its start."""
        share = _SHARES[self.name](seconds / self.period)
        return self.start + (self.end - self.start) * share


def curve_of(shown: float | str) -> Curve:
    """Return what a number or the words of a curve say.

    Raises:
        ValueError: it is no curve.
    """
    if not isinstance(shown, str):
        if not 0 <= shown < math.inf:
            raise ValueError(f"{shown} is not a number that a metric can have")
        return Curve(shown, shown)
    parts = shown.split(":")
    found = _PERIOD.match(parts[-1])
    if len(parts) != _PARTS or parts[0] not in _SHARES or found is None:
        raise ValueError(f"'{shown}' is not name:start:end:period with one of {', '.join(_SHARES)}")
    start, end = float(parts[1]), float(parts[2])
    period = float(found[1]) * _UNITS[found[2]]
    if not (0 <= start < math.inf and 0 <= end < math.inf and period > 0):
        raise ValueError(f"'{shown}' wants numbers of 0 or more, and a period above 0")
    return Curve(start, end, period, parts[0])


# How far from start to end each is, by the periods that have passed.
_SHARES: dict[str, Callable[[float], float]] = {
    "ramp": lambda turns: min(turns, 1.0),
    "rampreset": lambda turns: turns % 1.0,
    "squarewave": lambda turns: float(turns % 1.0 >= 0.5),  # noqa: PLR2004 - half a period
    "oscillate": lambda turns: (1 - math.cos(2 * math.pi * turns)) / 2,
}


class Fakes:
    """The fake metrics of a server, if there are any now. Curves begin when they are set."""

    def __init__(self, shown: FakeMetrics | None, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.replace(shown)

    def replace(self, shown: FakeMetrics | None) -> None:
        """Show this from now on; None: the measured values."""
        self.shown = shown
        self._start = self._clock()

    def gauge(self, shown: float | str) -> float:
        """Return what a number or a curve says now."""
        return curve_of(shown).at(self._clock() - self._start)

    def lora(self) -> Lora | None:
        """Return the adapters with the latest time."""
        loras = self.shown.loras if self.shown is not None else []
        return max(loras, key=lambda each: each.timestamp, default=None)
