"""CPU and latency of looking at batches and files: idle, and while lines are planned and sent."""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from _api_client import Measured, ask_again_and_again
from _dispatch_job import Job
from _dispatch_ours import Serving, create, serving, upload, wait_for_the_end
from _fast_upstream import fast_upstream
from _go import toolchain
from _machine import Cores, described, starting_on

# `./run bench` installs this extra of the package for a benchmark that names one.
EXTRA = "bench"

RESULT = "RESULT "
BATCHES_IN_A_PAGE = 20
CONNECTIONS = 4
# A pause that makes about 400 requests a second of four connections: many users who look often.
PAUSE_SECONDS = 0.01
LOAD_SECONDS_MAX = 600.0

RETRIEVE, LIST, FILE = "retrieve", "list", "file"
PLANNED, DISPATCHED = "planned", "dispatched"
AT_ONCE, PACED = "at_once", "paced"
PAUSES = {AT_ONCE: 0.0, PACED: PAUSE_SECONDS}


@dataclass(frozen=True)
class Plan:
    """What is run: lines of the batch, how many in flight, seconds of an idle load, rounds."""

    lines: int
    concurrency: int
    idle_seconds: float
    rounds: int


FULL = Plan(lines=50_000, concurrency=256, idle_seconds=3.0, rounds=3)
QUICK = Plan(lines=3_000, concurrency=32, idle_seconds=0.3, rounds=1)


@dataclass(frozen=True)
class Cost:
    """A load on the server while it does nothing else."""

    measured: Measured
    cpu_seconds: float

    @property
    def cpu_us_per_request(self) -> float:
        return 1e6 * self.cpu_seconds / self.measured.requests


@dataclass(frozen=True)
class Found:
    """All loads by name: those on the idle server, and those beside its work."""

    idle: Mapping[str, Sequence[Cost]]
    busy: Mapping[str, Sequence[Measured]]


def main() -> None:
    options = _options()
    plan = QUICK if options.quick else FULL
    if not options.quick and toolchain() is None:
        raise SystemExit(
            "Go is missing: './run bench api' installs it the first time, for which it needs a "
            "network. '--quick' does without it."
        )
    cores = Cores.chosen()
    for name, value in described().items():
        print(f"{name:>10}: {value}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tidegate-api-") as name:
        folder = Path(name)
        job = Job(folder, plan.lines, 2_000, plan.concurrency)
        with (
            fast_upstream(folder, cores.others) as upstream,
            serving(folder / "serve", upstream, plan.concurrency, cores.measured) as server,
            starting_on(cores.others),
        ):
            found = measure(server, job, plan, options.rounds or plan.rounds)
    _show(found)
    rest = {"quick": options.quick, "connections": CONNECTIONS, "machine": described()}
    print(RESULT + json.dumps(summary(found) | rest), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a trial, no figures")
    parser.add_argument("--rounds", type=int, help="how often each load runs")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def measure(server: Serving, job: Job, plan: Plan, rounds: int) -> Found:
    """Let all loads take turns, so that a noisy moment meets each of them."""
    idle: dict[str, list[Cost]] = defaultdict(list)
    busy: dict[str, list[Measured]] = defaultdict(list)
    small = Job(job.folder, 1, 2_000, 1)
    small_id = upload(server, small)
    batch_id = ""
    for _ in range(BATCHES_IN_A_PAGE):
        batch_id = str(create(server, small_id)["id"])
        wait_for_the_end(server, batch_id)
    file_id = upload(server, job)
    paths = {
        RETRIEVE: f"batches/{batch_id}",
        LIST: f"batches?limit={BATCHES_IN_A_PAGE}",
        FILE: f"files/{file_id}",
    }
    for number in range(rounds):
        for name, path in paths.items():
            cost = _idle(server, path, plan.idle_seconds)
            idle[name].append(cost)
            _report(number, f"{name}, idle", cost.measured, f"{cost.cpu_us_per_request:.0f} µs")
        for pace, pause_seconds in PAUSES.items():
            for phase, measured in _busy(server, file_id, pause_seconds):
                busy[f"{phase}_{pace}"].append(measured)
                _report(number, f"{RETRIEVE}, {phase}, {pace}", measured, "")
    return Found(idle, busy)


def _idle(server: Serving, path: str, seconds: float) -> Cost:
    before = server.cpu_seconds()
    measured = ask_again_and_again(
        f"{server.api.base_url}{path}",
        connections=CONNECTIONS,
        pause_seconds=0.0,
        seconds_max=seconds,
    )
    return Cost(measured, server.cpu_seconds() - before)


def _busy(server: Serving, file_id: str, pause_seconds: float) -> Iterator[tuple[str, Measured]]:
    """Look at a new batch while it is planned, and then while its lines are dispatched."""
    batch_id = str(create(server, file_id)["id"])
    for phase, status in ((PLANNED, b'"validating"'), (DISPATCHED, b'"in_progress"')):
        needle = b'"status":' + status
        yield (
            phase,
            ask_again_and_again(
                f"{server.api.base_url}batches/{batch_id}",
                connections=CONNECTIONS,
                pause_seconds=pause_seconds,
                seconds_max=LOAD_SECONDS_MAX,
                go_on=lambda body, needle=needle: needle in body,
            ),
        )
    wait_for_the_end(server, batch_id)


def _report(number: int, name: str, measured: Measured, more: str) -> None:
    print(
        f"round {number + 1}  {name:<32} {measured.requests:6} requests  "
        f"{measured.requests / measured.seconds:6.0f}/s  p50 {measured.percentile(0.5):6.2f}  "
        f"p99 {measured.percentile(0.99):6.2f}  at most {measured.percentile(1.0):6.2f} ms  {more}",
        file=sys.stderr,
        flush=True,
    )


# Figures


def summary(found: Found) -> dict[str, object]:
    """Return medians over the rounds; the largest p99 of each load is given beside them."""
    cpu = {name: _median([c.cpu_us_per_request for c in each]) for name, each in found.idle.items()}
    return {
        "requests_per_second_per_core": {name: round(1e6 / one) for name, one in cpu.items()},
        "cpu_us_per_request": {name: round(one, 1) for name, one in cpu.items()},
        "p99_ms_retrieve_dispatching": _p99(found.busy[f"{DISPATCHED}_{AT_ONCE}"]),
        "p99_ms_retrieve_dispatching_paced": _p99(found.busy[f"{DISPATCHED}_{PACED}"]),
        "p99_ms_retrieve_planning": _p99(found.busy[f"{PLANNED}_{AT_ONCE}"]),
        "p99_ms_retrieve_planning_paced": _p99(found.busy[f"{PLANNED}_{PACED}"]),
        "client_cpu_us_per_request": round(_client(found), 1),
        "spread": {
            name: _spread([cost.cpu_us_per_request for cost in each])
            for name, each in found.idle.items()
        },
        "loads": {name: _latencies(each) for name, each in _all_loads(found)},
        "rounds": len(found.idle[RETRIEVE]),
    }


def _all_loads(found: Found) -> Iterator[tuple[str, Sequence[Measured]]]:
    for name, costs in found.idle.items():
        yield f"{name}, idle", [cost.measured for cost in costs]
    for name, each in found.busy.items():
        yield f"{RETRIEVE}, {name}", each


def _latencies(each: Sequence[Measured]) -> dict[str, float]:
    return {
        "requests": sum(measured.requests for measured in each),
        "per_second": round(_median([measured.requests / measured.seconds for measured in each])),
        "p50_ms": round(_median([measured.percentile(0.5) for measured in each]), 2),
        "p99_ms": _p99(each),
        "p99_ms_max": round(max(measured.percentile(0.99) for measured in each), 2),
        "ms_max": round(max(measured.percentile(1.0) for measured in each), 2),
    }


def _p99(each: Sequence[Measured]) -> float:
    return round(_median([measured.percentile(0.99) for measured in each]), 2)


def _client(found: Found) -> float:
    measured = [cost.measured for each in found.idle.values() for cost in each]
    return _median([one.client_cpu_us / one.requests for one in measured])


def _median(values: Sequence[float]) -> float:
    return statistics.median(values)


def _spread(values: Sequence[float]) -> float:
    return round((max(values) - min(values)) / statistics.median(values), 3)


def _show(found: Found) -> None:
    cpu = {
        f"{name}, idle": f"{_median([cost.cpu_us_per_request for cost in costs]):.0f}"
        for name, costs in found.idle.items()
    }
    print("| load | CPU µs a request | requests/s | p50, ms | p99, ms | largest p99 |")
    print("|---|--:|--:|--:|--:|--:|")
    for name, each in _all_loads(found):
        row = _latencies(each)
        print(
            f"| {name} | {cpu.get(name, '')} | {row['per_second']:.0f} | {row['p50_ms']} "
            f"| {row['p99_ms']} | {row['p99_ms_max']} |"
        )


if __name__ == "__main__":
    main()
