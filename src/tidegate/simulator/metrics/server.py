"""Metrics of the server around the engine: its HTTP interface, its process, and its operations.

They have the names that vLLM's web framework and client library give them.
"""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)

from tidegate.simulator.answers.generation import Generation
from tidegate.simulator.metrics.web import WebMetrics

_OF_SLEEP = (0.01, 0.1, 1.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
_MODES = ("streaming", "non_streaming")
_OUTCOMES = ("tool_call", "no_tool_call")
_KINDS = ("chat_completions", "responses", "other")
OPERATIONS = ("sleep", "wake")


class ServerMetrics:
    """Counts what the server does. `clock` returns seconds for durations, `began` when it began.

    Attributes:
        web: counts what is asked over HTTP.
    """

    def __init__(self, model: str, clock: Callable[[], float], began: float) -> None:
        self._model = model
        self.web = WebMetrics(clock, began)
        self._clock = clock
        self._own = CollectorRegistry()
        self._vllm = CollectorRegistry()
        ProcessCollector(registry=self._own)
        PlatformCollector(registry=self._own)
        GCCollector(registry=self._own)
        self._make_operations()

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
        own = self.web.text() + generate_latest(self._own)
        return own if is_fake else own + generate_latest(self._vllm)
