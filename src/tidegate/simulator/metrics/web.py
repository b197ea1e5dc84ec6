"""What the HTTP interface did, under the names that vLLM's web framework gives it.

It is counted with every request, so it is added up here, and written down when it is asked for.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from tidegate.simulator.metrics.histogram import Histogram
from tidegate.simulator.web.call import Call

# These are asked all the time, and are not counted.
UNCOUNTED = frozenset({"/metrics", "/health", "/load", "/ping", "/version", "/server_info"})
ELSEWHERE = "none"
_FINE = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0),
    *(7.5, 10.0, 30.0, 60.0),
)
_COARSE = (0.1, 0.5, 1.0)
_REQUESTS = "Total number of requests by method, status and handler."
_ASKED = "Content length of incoming requests by handler."
_REPLIES = "Content length of outgoing responses by handler."
_ALL = "Latency with many buckets but no labels."
_EACH = "Latency with few buckets by handler and method."


class _Tally:
    """What was asked of one handler by one method, with one status."""

    __slots__ = ("asked_bytes", "count", "reply_bytes", "seconds")

    def __init__(self, seconds: Histogram) -> None:
        self.count = self.asked_bytes = self.reply_bytes = 0
        self.seconds = seconds


class WebMetrics:
    """Counts calls. `clock` returns seconds for durations, `began` is when the counting began."""

    def __init__(self, clock: Callable[[], float], began: float) -> None:
        self._clock = clock
        self._began = began
        self._paths: frozenset[str] = frozenset()
        self._tallies: dict[tuple[str, str, int], _Tally] = {}
        self._seconds: dict[tuple[str, str], Histogram] = {}
        self._all_seconds = Histogram(_FINE)

    def know(self, paths: Iterable[str]) -> None:
        """Count these paths by name; all others are one."""
        self._paths = frozenset(paths) - UNCOUNTED

    def answered(self, call: Call) -> None:
        """Count a call that has its reply; who hung up before there was one is not counted."""
        tally = self._tallies.get((call.path, call.method, call.status))
        if tally is None:
            if call.path in UNCOUNTED or not call.status:
                return
            tally = self._tally_of(call)
        tally.count += 1
        tally.asked_bytes += len(call.body)
        tally.reply_bytes += call.reply_bytes
        took = max(0.0, self._clock() - call.began)
        tally.seconds.see(took)
        self._all_seconds.see(took)

    def _tally_of(self, call: Call) -> _Tally:
        handler = call.path if call.path in self._paths else ELSEWHERE
        seconds = self._seconds.setdefault((handler, call.method), Histogram(_COARSE))
        return self._tallies.setdefault((handler, call.method, call.status), _Tally(seconds))

    def text(self) -> bytes:
        """Return everything as Prometheus reads it."""
        return ("\n".join([*self._counted(), *self._timed()]) + "\n").encode()

    def _counted(self) -> Iterator[str]:
        tallies = sorted(self._tallies.items())
        counts: Counter[str] = Counter()
        for (handler, method, status), tally in tallies:
            label = f'{{handler="{handler}",method="{method}",status="{status // 100}xx"}}'
            counts[label] += tally.count
        yield from _head("http_requests_total", "counter", _REQUESTS)
        for label, count in counts.items():
            yield f"http_requests_total{label} {float(count)}"
        yield from self._created("http_requests", _REQUESTS, counts)
        handlers = sorted({key[0] for key in self._tallies})
        for name, about in (("request", _ASKED), ("response", _REPLIES)):
            full = f"http_{name}_size_bytes"
            yield from _head(full, "summary", about)
            for handler in handlers:
                mine = [tally for key, tally in tallies if key[0] == handler]
                sizes = [
                    each.asked_bytes if name == "request" else each.reply_bytes for each in mine
                ]
                count = sum(each.count for each in mine)
                yield f'{full}_count{{handler="{handler}"}} {float(count)}'
                yield f'{full}_sum{{handler="{handler}"}} {float(sum(sizes))}'
            yield from self._created(full, about, [f'{{handler="{each}"}}' for each in handlers])

    def _timed(self) -> Iterator[str]:
        name = "http_request_duration_highr_seconds"
        yield from _head(name, "histogram", _ALL)
        yield from self._all_seconds.lines(name, "")
        yield from self._created(name, _ALL, [""])
        name = "http_request_duration_seconds"
        yield from _head(name, "histogram", _EACH)
        labels = []
        for (handler, method), seconds in sorted(self._seconds.items()):
            label = f'handler="{handler}",method="{method}"'
            yield from seconds.lines(name, label + ",")
            labels.append(f"{{{label}}}")
        yield from self._created(name, _EACH, labels)

    def _created(self, name: str, about: str, labels: Iterable[str]) -> Iterator[str]:
        yield from _head(f"{name}_created", "gauge", about)
        for label in labels:
            yield f"{name}_created{label} {self._began!r}"


def _head(name: str, kind: str, about: str) -> Iterator[str]:
    yield f"# HELP {name} {about}"
    yield f"# TYPE {name} {kind}"
