"""The state of each model server: its limit, its pauses, and the models that it serves."""

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from mypy_extensions import mypyc_attr
from typing_extensions import override

from tidegate.domain.claim import Unit
from tidegate.domain.errors import SettingsInvalid
from tidegate.endpoints.limiters.aimd import Aimd, AimdSettings
from tidegate.sandbox.base import InProcessSandbox, Sandbox
from tidegate.upstreams.base import Upstream

REPLY_BYTES_EXPECTED_MIN = 4_096
REPLY_BYTES_EXPECTED_START = 262_144
SERVED_MODELS_MAX = 1_000
MODELS_MAX = 256
LATELY_SECONDS = 15.0


@mypyc_attr(native_class=False)  # the settings are built from its annotations
@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffSettings:
    """How long a failing endpoint is paused: doubling from `seconds_min` to `seconds_max`.

    A `Retry-After` is obeyed up to `retry_after_seconds_max`. An endpoint that answers that it does
    not know a model, and has never served it, counts as still starting for `starting_seconds`.
    """

    seconds_min: float = 0.5
    seconds_max: float = 10.0
    retry_after_seconds_max: float = 120.0
    starting_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not 0 < self.seconds_min <= self.seconds_max:
            raise SettingsInvalid("backoff needs 0 < seconds_min <= seconds_max.")
        if min(self.retry_after_seconds_max, self.starting_seconds) < 0:
            raise SettingsInvalid(
                "backoff.retry_after_seconds_max and starting_seconds can't be negative."
            )


class Endpoint:
    """One model server: its upstream, limit and pauses. Times are seconds of the event loop.

    A paused endpoint gets nothing until the pause is over, then one request at a time until one is
    served, so that a server that recovers is not overloaded immediately.

    `open_sandbox` opens a sandbox that calls the same server, for lines that must run alone;
    without it they run in this process.
    """

    def __init__(
        self,
        name: str,
        upstream: Upstream,
        *,
        limits: AimdSettings | None = None,
        backoff: BackoffSettings | None = None,
        open_sandbox: Callable[[], Sandbox] | None = None,
    ) -> None:
        self.name = name
        self.upstream = upstream
        self.open_sandbox: Callable[[], Sandbox] = open_sandbox or (
            lambda: InProcessSandbox(upstream)
        )
        self.limiter = Aimd(limits or AimdSettings())
        self._limits = limits
        self._models: dict[str, Endpoint] = {}
        self.served_at = float("-inf")
        self.served_models: set[str] = set()
        self.reason: str | None = None
        self.reply_bytes_expected = float(REPLY_BYTES_EXPECTED_START)
        self._backoff = backoff or BackoffSettings()
        self._paused_until = float("-inf")
        self._failures = 0
        self._refused_line: tuple[Unit, int] | None = None
        self._refused_since = float("-inf")
        self._first_sent_at: float | None = None
        self._rank = 0
        self._count = 1

    def share(self, *, rank: int, count: int, now: float) -> None:
        """Use the part of number `rank` of `count` processors of what this endpoint takes.

        If the limit can't be divided evenly, the endpoint's name decides which processors get the
        larger parts; otherwise the first would get every endpoint with a small limit.
        """
        self._rank, self._count = rank, count
        for endpoint in (self, *self._models.values()):
            place = (rank + zlib.crc32(endpoint.name.encode())) % count
            endpoint.limiter.share(rank=place, count=count, now=now)

    def has_room(self, now: float) -> bool:
        """Return whether one more request may be sent now."""
        if now < self._paused_until:
            return False
        if self._failures:
            return self.limiter.in_flight == 0 and self.has_part
        return self.limiter.has_room

    def is_paused(self, now: float) -> bool:
        """Return whether the endpoint is paused."""
        return now < self._paused_until

    def pause_left(self, now: float) -> float:
        """Return how many seconds of the pause are left; 0 if it is not paused."""
        return max(0.0, self._paused_until - now)

    def was_paused_lately(self, now: float) -> bool:
        """Return whether it is failing, and was paused within `LATELY_SECONDS`.

        It is tried between two pauses; batches that wait for it still wait for the same reason.
        """
        return self.reason is not None and now < self._paused_until + LATELY_SECONDS

    @property
    def is_on_trial(self) -> bool:
        """Whether it failed, and is now tried with one request at a time."""
        return self._failures > 0

    @property
    def has_part(self) -> bool:
        """Whether this processor has a part of its limit; if not, others run its lines."""
        return self.limiter.limit > 0

    @property
    def window(self) -> int:
        """How many requests may be in flight: one while it is on trial."""
        return min(1, self.limiter.limit) if self._failures else self.limiter.limit

    def on_start(self, now: float) -> int:
        """Record that a request is about to be sent; return how many are in flight with it."""
        if self._first_sent_at is None:
            self._first_sent_at = now
        return self.limiter.start()

    def on_served(self, model: str, now: float, reply_bytes: int, in_flight: int) -> None:
        """Record a successful reply to a request that was sent when `in_flight` were in flight."""
        self.served_at = now
        if model not in self.served_models and len(self.served_models) < SERVED_MODELS_MAX:
            self.served_models.add(model)
        self._failures = 0
        self.reason = None
        self.limiter.on_success(in_flight)
        # Twice the size is expected; the estimate rises quickly and falls slowly.
        target = max(REPLY_BYTES_EXPECTED_MIN, 2 * reply_bytes)
        weight = 0.5 if target > self.reply_bytes_expected else 0.05
        self.reply_bytes_expected += weight * (target - self.reply_bytes_expected)

    def on_answered(self) -> None:
        """Record a reply that is an error of the line: the endpoint works, so it is not paused."""
        self._failures = 0
        self.reason = None

    def on_refused(self, line: tuple[Unit, int], now: float) -> float:
        """Record that a line was refused; return since when no other line was."""
        if line != self._refused_line:
            self._refused_line = line
            self._refused_since = now
        return self._refused_since

    def is_starting(self, model: str, now: float) -> bool:
        """Return whether an unknown model may not be loaded yet."""
        first = self._first_sent_at if self._first_sent_at is not None else now
        return model not in self.served_models and now - first < self._backoff.starting_seconds

    def on_overload(self, *, reason: str, sent_at: float, now: float, after: float | None) -> None:
        """Record a refusal for lack of capacity.

        The limit is lowered. The endpoint is paused if the reply has a Retry-After, or if nothing
        was served since the request was sent.
        """
        lowered = self.limiter.on_overload(sent_at, now)
        if after is not None or (lowered and self.served_at < sent_at):
            self._pause(reason, now, after)

    def on_fault(
        self, *, reason: str, sent_at: float, now: float, after: float | None = None
    ) -> None:
        """Record a fault, unless the request was sent before the last pause ended."""
        if sent_at >= self._paused_until:
            self._pause(reason, now, after)

    def for_model(self, model: str) -> "Endpoint":
        """Return the endpoint for one model behind this gateway.

        A gateway serves its models by different engines. Each has a separate limit and pauses, so
        that a slow model takes nothing from a fast one. At most `MODELS_MAX` are kept; the least
        recently served one is dropped.
        """
        found = self._models.get(model)
        if found is None:
            if len(self._models) >= MODELS_MAX:
                del self._models[min(self._models, key=self._staleness)]
            found = Endpoint(
                f"{self.name}/{model}",
                self.upstream,
                limits=self._limits,
                backoff=self._backoff,
                open_sandbox=self.open_sandbox,
            )
            found.share(rank=self._rank, count=self._count, now=float("-inf"))
            self._models[model] = found
        return found

    def _staleness(self, model: str) -> tuple[bool, float]:
        endpoint = self._models[model]
        return endpoint.limiter.in_flight > 0, endpoint.served_at

    def model_endpoints(self) -> list["Endpoint"]:
        """Return the endpoints of single models behind this gateway."""
        return list(self._models.values())

    def _pause(self, reason: str, now: float, after: float | None) -> None:
        self._failures += 1
        settings = self._backoff
        seconds = min(
            settings.seconds_max, settings.seconds_min * 2.0 ** min(self._failures - 1, 32)
        )
        if after is not None:
            seconds = max(seconds, min(after, settings.retry_after_seconds_max))
        self._paused_until = max(self._paused_until, now + seconds)
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Which endpoint serves which model: one for each named model, or one for any."""

    by_model: Mapping[str, Endpoint] = field(default_factory=dict)
    default: Endpoint | None = None

    def __post_init__(self) -> None:
        if not self.by_model and self.default is None:
            raise SettingsInvalid("No upstream is configured: set upstream.url or upstreams.")

    def find(self, model: str) -> Endpoint | None:
        """Return the endpoint of a model, or None if none serves it."""
        named = self.by_model.get(model)
        if named is not None or self.default is None:
            return named
        return self.default.for_model(model)

    def share(self, *, rank: int, count: int, now: float) -> None:
        """Use the part of number `rank` of `count` processors of every endpoint."""
        for endpoint in self.by_model.values():
            endpoint.share(rank=rank, count=count, now=now)
        if self.default is not None:
            self.default.share(rank=rank, count=count, now=now)

    def endpoints(self) -> Iterable[Endpoint]:
        """Return every endpoint that requests may be sent to, once."""
        found = list({id(endpoint): endpoint for endpoint in self.by_model.values()}.values())
        if self.default is not None:
            found += self.default.model_endpoints()
        return found


class NoRoutes(Routes):
    """No endpoints: for a processor that only ends batches."""

    @override
    def __post_init__(self) -> None:
        assert not self.by_model, "has an endpoint"
        assert self.default is None, "has an endpoint"
