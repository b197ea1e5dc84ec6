"""Metrics of the server around the engine: its HTTP interface, its process, and its operations.

They have the names that vLLM's web framework and client library give them.
"""

from collections.abc import Callable, Iterable
from typing import Protocol

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    Summary,
    generate_latest,
)

from tidegate.simulator.generation import Generation

# These are asked all the time, and are not counted.
UNCOUNTED = frozenset({"/metrics", "/health", "/load", "/ping", "/version", "/server_info"})
ELSEWHERE = "none"
_FINE = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0),
    *(7.5, 10.0, 30.0, 60.0),
)
_COARSE = (0.1, 0.5, 1.0)
_OF_SLEEP = (0.01, 0.1, 1.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_MODES = ("streaming", "non_streaming")
_OUTCOMES = ("tool_call", "no_tool_call")
_KINDS = ("chat_completions", "responses", "other")
OPERATIONS = ("sleep", "wake")


class Answered(Protocol):
    """A call that has its reply."""

    method: str
    path: str
    body: bytes
    status: int
    reply_bytes: int


class ServerMetrics:
    """Counts what the server does. `clock` tells seconds, for durations."""

    def __init__(self, model: str, clock: Callable[[], float]) -> None:
        self._model = model
        self._paths: frozenset[str] = frozenset()
        self._clock = clock
        # To look a series up by its labels takes longer than to count in it.
        self._series: dict[tuple[str, int, str], tuple[Counter, Summary, Summary, Histogram]] = {}
        self._own = CollectorRegistry()
        self._vllm = CollectorRegistry()
        ProcessCollector(registry=self._own)
        PlatformCollector(registry=self._own)
        GCCollector(registry=self._own)
        self._make_web()
        self._make_operations()

    def _make_web(self) -> None:
        own = self._own
        self._requests = Counter(
            "http_requests_total",
            "Total number of requests by method, status and handler.",
            ("method", "status", "handler"),
            registry=own,
        )
        self._asked_bytes = Summary(
            "http_request_size_bytes",
            "Content length of incoming requests by handler.",
            ("handler",),
            registry=own,
        )
        self._reply_bytes = Summary(
            "http_response_size_bytes",
            "Content length of outgoing responses by handler.",
            ("handler",),
            registry=own,
        )
        self._all_seconds = Histogram(
            "http_request_duration_highr_seconds",
            "Latency with many buckets but no labels.",
            buckets=_FINE,
            registry=own,
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "Latency with few buckets by handler.",
            ("handler", "method"),
            buckets=_COARSE,
            registry=own,
        )

    def _make_operations(self) -> None:
        self._parsed = Counter(
            "vllm:tool_call_parser_invocations_total",
            "How often an answer was looked through for calls of tools.",
            ("model_name", "mode", "outcome", "request_type"),
            registry=self._vllm,
        )
        for mode in _MODES:
            for outcome in _OUTCOMES:
                for kind in _KINDS:
                    self._parsed.labels(self._model, mode, outcome, kind)
        self._operation_seconds = Histogram(
            "vllm:sleep_mode_operation_duration_seconds",
            "Duration of one sleep-mode operation.",
            ("operation",),
            buckets=_OF_SLEEP,
            registry=self._vllm,
        )
        self._operations = Gauge(
            "vllm:sleep_mode_operations_in_flight",
            "Sleep-mode operations currently awaited.",
            ("operation",),
            registry=self._vllm,
        )
        for name in OPERATIONS:
            self._operation_seconds.labels(name)
            self._operations.labels(name)

    def know(self, paths: Iterable[str]) -> None:
        """Tell of these paths by name; all others are one."""
        self._paths = frozenset(paths)

    def watch(self) -> Callable[[Answered], None]:
        """Return what counts a call that begins now, once it has its reply."""
        began = self._clock()

        def answered(call: Answered) -> None:
            handler = call.path if call.path in self._paths else ELSEWHERE
            if handler in UNCOUNTED or not call.status:
                return
            took = max(0.0, self._clock() - began)
            kind = (call.method, call.status // 100, handler)
            series = self._series.get(kind)
            if series is None:
                series = self._series[kind] = self._series_of(*kind)
            requests, asked_bytes, reply_bytes, seconds = series
            requests.inc()
            asked_bytes.observe(len(call.body))
            reply_bytes.observe(call.reply_bytes)
            self._all_seconds.observe(took)
            seconds.observe(took)

        return answered

    def _series_of(
        self, method: str, hundreds: int, handler: str
    ) -> tuple[Counter, Summary, Summary, Histogram]:
        return (
            self._requests.labels(method, f"{hundreds}xx", handler),
            self._asked_bytes.labels(handler),
            self._reply_bytes.labels(handler),
            self._seconds.labels(handler, method),
        )

    def parsed(self, generation: Generation) -> None:
        """Count how often an answer was looked through: once, or of a stream at each token."""
        mode = _MODES[not generation.is_streamed]
        for choice in generation.choices:
            if choice.is_complete:
                outcome = _OUTCOMES[not choice.plan.calls]
                count = choice.plan.total if generation.is_streamed else 1
                self._parsed.labels(self._model, mode, outcome, generation.parses).inc(count)

    def operation(self, name: str) -> Callable[[], None]:
        """Count an operation of sleep in; what is returned counts it out."""
        began = self._clock()
        self._operations.labels(name).inc()

        def ended() -> None:
            self._operations.labels(name).dec()
            self._operation_seconds.labels(name).observe(max(0.0, self._clock() - began))

        return ended

    def text(self, *, is_fake: bool) -> bytes:
        """Return everything as Prometheus reads it; nothing that is named vLLM's beside fakes."""
        own = generate_latest(self._own)
        return own if is_fake else own + generate_latest(self._vllm)
