"""The metrics of the API."""

from prometheus_client import CollectorRegistry, Counter, Histogram

OTHER = "other"
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})
_REQUEST_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60)


class HttpMetrics:
    """Counts and times the requests of the API."""

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

    def on_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count an answered request. `route` is the path's template, never the path itself."""
        if method not in _METHODS:
            method = OTHER
        counter = self._counters.get((method, route, status))
        if counter is None:
            counter = self._requests.labels(method, route, str(status))
            self._counters[method, route, status] = counter
        timer = self._timers.get(route)
        if timer is None:
            timer = self._timers[route] = self._seconds.labels(route)
        counter.inc()
        timer.observe(seconds)
