"""All metrics of one process: its own, and one group for each room.

Every name begins with `tidegate_` and is declared once, in the file of its room.
"""

from collections.abc import Callable
from functools import partial

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from tidegate.telemetry.collector_metrics import CollectorMetrics
from tidegate.telemetry.http_metrics import HttpMetrics
from tidegate.telemetry.processor_metrics import ProcessorMetrics


class Metrics:
    """The metrics of one process, in a registry that no other instance shares."""

    def __init__(self, registry: CollectorRegistry) -> None:
        gauge = partial(Gauge, registry=registry)
        self._registry = registry
        self.http = HttpMetrics(registry)
        self.processor = ProcessorMetrics(registry)
        self.collector = CollectorMetrics(registry)
        self._loop_lag = gauge(
            "tidegate_loop_lag_seconds", "How late the event loop ran its last timer."
        )
        self._processors = gauge(
            "tidegate_processors_alive",
            "Child processes that work on batches; 0 if there are none.",
        )
        self._full: list[Callable[[], bool]] = [lambda: self.processor.is_storage_full]
        gauge(
            "tidegate_storage_full",
            "1 while this process finds no room to write on the disk, else 0.",
        ).set_function(lambda: any(is_full() for is_full in self._full))

    def render(self) -> bytes:
        """Return everything in Prometheus' text format."""
        return generate_latest(self._registry)

    def watch_storage(self, is_full: Callable[[], bool]) -> None:
        """Call this when metrics are read: storage is full if any such function returns True."""
        self._full.append(is_full)

    def watch_processors(self, alive: Callable[[], float]) -> None:
        """Call this for the number of child processes when metrics are read."""
        self._processors.set_function(alive)

    def loop_lag(self, seconds: float) -> None:
        """Record how late the event loop ran a timer."""
        self._loop_lag.set(seconds)
