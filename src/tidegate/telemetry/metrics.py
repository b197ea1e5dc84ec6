"""Every metric of the product, declared once, and the calls that rooms count with.

All names begin with `tidegate_`. The calls on hot paths find their child in a dictionary, because
looking it up by label costs four times as much. A label whose values come from outside is bounded:
beyond `MODELS_MAX` models the rest share the value `other`.
"""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from tidegate.domain.usage import Usage
from tidegate.telemetry.collector_metrics import CollectorMetrics

MODELS_MAX = 200
OTHER = "other"
ENDPOINTS_MAX = 200
CONTENT_TYPE = CONTENT_TYPE_LATEST

_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)
_COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_COMMIT_LINES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_PLANNING_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)


class Metrics:
    """The metrics of one process, in the registry that it is given.

    Two of these never share a registry. Every call is cheap, never blocks and never raises.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._http = _Http(registry)
        self._lines = _Lines(registry)
        self._endpoints = _Endpoints(registry)
        self._claims = _Claims(registry)
        self._commits = _Commits(registry)
        self._quarantine = _Quarantine(registry)
        self.collector = CollectorMetrics(registry)
        self._loop_lag = Gauge(
            "tidegate_loop_lag_seconds",
            "How late the event loop ran its last timer.",
            registry=registry,
        )

        self._storage_full = Gauge(
            "tidegate_storage_full",
            "1 while this process finds no room to write on the disk, else 0.",
            registry=registry,
        )
        self._full: list[Callable[[], bool]] = []
        self._storage_full.set_function(lambda: any(is_full() for is_full in self._full))
        self._processors = Gauge(
            "tidegate_processors_alive",
            "Child processes that work on batches; always 0 where there are no children.",
            registry=registry,
        )

    def render(self) -> bytes:
        """Return everything in Prometheus' text format, of type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    # The API

    def http_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. `route` is the path's template, never the path itself."""
        self._http.count(method if method in _METHODS else OTHER, route, status, seconds)

    # The processor

    def attempts(self, endpoint: str, outcome: str, count: int = 1) -> None:
        """Count calls to a model server, by what became of them."""
        self._endpoints.attempts(endpoint, outcome, count)

    def watch_endpoint(
        self,
        endpoint: str,
        *,
        in_flight: Callable[[], float],
        limit: Callable[[], float],
        is_paused: Callable[[], bool],
    ) -> None:
        """Ask these for the state of an endpoint whenever metrics are read."""
        self._endpoints.watch(endpoint, in_flight, limit, is_paused)

    def lines_done(self, model: str, completed: int, failed: int, usage: Usage) -> None:
        """Count lines of one model whose results were committed, and their tokens."""
        self._lines.done(model, completed, failed, usage)

    def lines_repeated(self, count: int) -> None:
        """Count lines that are run again because the results of the first run were lost."""
        self._lines.repeated.inc(count)

    def batch_ended(self, status: str) -> None:
        """Count a batch that came to a terminal status."""
        self._lines.batch_ended(status)

    def planned(self, seconds: float) -> None:
        """Note how long validating and planning a batch took."""
        self._claims.planning_seconds.observe(seconds)

    def claimed(self, kind: str, count: int = 1) -> None:
        """Count units that were claimed."""
        self._claims.claimed(kind, count)

    def claim_lost(self, kind: str, count: int = 1) -> None:
        """Count units that somebody else took over."""
        self._claims.lost(kind, count)

    def commit(self, lines: int, seconds: float) -> None:
        """Note one commit: its lines, and how long bytes and ledger took."""
        self._commits.count(lines, seconds)

    def watch_processor(
        self, *, uncommitted_lines: Callable[[], float], open_shards: Callable[[], float]
    ) -> None:
        """Ask these for the state of the processor whenever metrics are read."""
        self._commits.uncommitted.set_function(uncommitted_lines)
        self._claims.open_shards.set_function(open_shards)

    def line_quarantined(self) -> None:
        """Count a line that was sent alone, through a child process."""
        self._quarantine.lines.inc()

    def cell_died(self) -> None:
        """Count a child process that died while it carried a line."""
        self._quarantine.deaths.inc()

    def watch_quarantine(self, shards: Callable[[], float]) -> None:
        """Ask this for the number of open shards in quarantine whenever metrics are read."""
        self._quarantine.shards.set_function(shards)

    def watch_storage(self, is_full: Callable[[], bool]) -> None:
        """Ask this too whenever metrics are read: the storage is full if any says so."""
        self._full.append(is_full)

    # The process

    def watch_processors(self, alive: Callable[[], float]) -> None:
        """Ask this for the number of child processes whenever metrics are read."""
        self._processors.set_function(alive)

    def loop_lag(self, seconds: float) -> None:
        """Note how late the event loop ran a timer."""
        self._loop_lag.set(seconds)


class _Http:
    """What the API answered."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "tidegate_http_requests_total",
            "Requests that the API answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "tidegate_http_request_seconds",
            "Time from a request's head to the end of its answer.",
            ["route"],
            buckets=_REQUEST_SECONDS,
            registry=registry,
        )
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}

    def count(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one request."""
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._requests.labels(method, route, str(status))
            self._counters[method, route, status] = counter
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        counter.inc()
        timer.observe(seconds)


class _Lines:
    """What became of lines and batches."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._lines = Counter(
            "tidegate_lines_total",
            "Lines whose result was committed, by model and outcome (completed, failed).",
            ["model", "outcome"],
            registry=registry,
        )
        self._tokens = Counter(
            "tidegate_tokens_total",
            "Tokens of committed lines (input, cached, output, reasoning); "
            "cached is a part of input, reasoning of output.",
            ["model", "direction"],
            registry=registry,
        )
        self.repeated = Counter(
            "tidegate_repeated_lines_total",
            "Lines whose results were dropped because another process had taken over their shard.",
            registry=registry,
        )
        self._batches = Counter(
            "tidegate_batches_total",
            "Batches that ended, by terminal status.",
            ["status"],
            registry=registry,
        )
        self._children: dict[str, tuple[Counter, ...]] = {}

    def done(self, model: str, completed: int, failed: int, usage: Usage) -> None:
        """Count lines of one model."""
        amounts = (
            completed,
            failed,
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
        )
        for counter, amount in zip(self._of_model(model), amounts, strict=True):
            if amount:
                counter.inc(amount)

    def batch_ended(self, status: str) -> None:
        """Count a batch."""
        self._batches.labels(status).inc()

    def _of_model(self, model: str) -> tuple[Counter, ...]:
        children = self._children.get(model)
        if children is not None:
            return children
        if len(self._children) >= MODELS_MAX and model != OTHER:
            return self._of_model(OTHER)
        lines = (self._lines.labels(model, outcome) for outcome in ("completed", "failed"))
        tokens = (
            self._tokens.labels(model, direction)
            for direction in ("input", "cached", "output", "reasoning")
        )
        self._children[model] = (*lines, *tokens)
        return self._children[model]


class _Endpoints:
    """What model servers do. Behind a gateway each model counts as one, so names are bounded."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "tidegate_attempts_total",
            "Calls to a model server, by what became of them.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self._in_flight = Gauge(
            "tidegate_in_flight",
            "Calls to a model server that are under way.",
            ["endpoint"],
            registry=registry,
        )
        self._limit = Gauge(
            "tidegate_limit",
            "How many calls the adaptive limiter lets be under way.",
            ["endpoint"],
            registry=registry,
        )
        self._paused = Gauge(
            "tidegate_endpoint_paused",
            "1 while an endpoint rests after faults of its own, else 0.",
            ["endpoint"],
            registry=registry,
        )
        self._children: dict[tuple[str, str], Counter] = {}
        self._names: set[str] = set()

    def attempts(self, endpoint: str, outcome: str, count: int) -> None:
        """Count calls."""
        counter = self._children.get((endpoint, outcome))
        if counter is None:
            name = self._bounded(endpoint)
            counter = self._attempts.labels(name, outcome)
            self._children[name, outcome] = counter
        counter.inc(count)

    def _bounded(self, endpoint: str) -> str:
        if endpoint not in self._names:
            if len(self._names) >= ENDPOINTS_MAX:
                return OTHER
            self._names.add(endpoint)
        return endpoint

    def watch(
        self,
        endpoint: str,
        in_flight: Callable[[], float],
        limit: Callable[[], float],
        is_paused: Callable[[], bool],
    ) -> None:
        """Read these whenever metrics are read. What is beyond the bound is not watched."""
        if self._bounded(endpoint) == OTHER:
            return
        self._in_flight.labels(endpoint).set_function(in_flight)
        self._limit.labels(endpoint).set_function(limit)
        self._paused.labels(endpoint).set_function(is_paused)


class _Claims:
    """Who works on what."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._claims = Counter(
            "tidegate_claims_total",
            "Units claimed by this process (planning, shard, finalizing).",
            ["kind"],
            registry=registry,
        )
        self._lost = Counter(
            "tidegate_claims_lost_total",
            "Units that another process took over from this one.",
            ["kind"],
            registry=registry,
        )
        self.open_shards = Gauge(
            "tidegate_open_shards", "Shards that this process holds.", registry=registry
        )
        self.planning_seconds = Histogram(
            "tidegate_planning_seconds",
            "Time that validating and planning one batch took.",
            buckets=_PLANNING_SECONDS,
            registry=registry,
        )

    def claimed(self, kind: str, count: int) -> None:
        """Count claims."""
        self._claims.labels(kind).inc(count)

    def lost(self, kind: str, count: int) -> None:
        """Count losses."""
        self._lost.labels(kind).inc(count)


class _Quarantine:
    """What runs alone (PROTOCOL 20)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.lines = Counter(
            "tidegate_quarantined_lines_total",
            "Lines that were sent one at a time through a child process.",
            registry=registry,
        )
        self.deaths = Counter(
            "tidegate_cell_deaths_total",
            "Child processes that died while they carried a line or planned a batch.",
            registry=registry,
        )
        self.shards = Gauge(
            "tidegate_quarantined_shards",
            "Open shards whose lines run one at a time.",
            registry=registry,
        )


class _Commits:
    """How results become true."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._commits = Counter(
            "tidegate_commits_total", "Commits of results to the ledger.", registry=registry
        )
        self._seconds = Histogram(
            "tidegate_commit_seconds",
            "Time that one commit took: its bytes, then its transaction.",
            buckets=_COMMIT_SECONDS,
            registry=registry,
        )
        self._lines = Histogram(
            "tidegate_commit_lines",
            "Lines in one commit.",
            buckets=_COMMIT_LINES,
            registry=registry,
        )
        self.uncommitted = Gauge(
            "tidegate_uncommitted_lines",
            "Results that came back and are not yet committed.",
            registry=registry,
        )

    def count(self, lines: int, seconds: float) -> None:
        """Note one commit."""
        self._commits.inc()
        self._seconds.observe(seconds)
        self._lines.observe(lines)
