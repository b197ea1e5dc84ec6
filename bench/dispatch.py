"""CPU of one batch line from its shard to its durable result, beside a bare client in Go."""

import argparse
import importlib.util
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from _dispatch_contest import (
    AIOHTTP,
    GO,
    HTTPX,
    OURS,
    OURS_PLAIN,
    OURS_TLS,
    Arena,
    contestants,
    open_arena,
)
from _dispatch_job import Cost, Job, OurCost
from _dispatch_ours import run_batch, serving
from _dispatch_profile import profile
from _fast_upstream import fast_upstream
from _go import toolchain
from _machine import Cores, described
from _picture import Bar, bars

# `./run bench` installs this extra of the package for a benchmark that names one.
EXTRA = "bench"

RESULT = "RESULT "
PROFILED_BATCHES = 3


@dataclass(frozen=True)
class Rate:
    """A number of lines that the upstream lets through in a second, for a number of lines."""

    lines_per_second: int
    lines: int
    concurrency: int

    @property
    def delay_ms(self) -> float:
        return 1_000 * self.concurrency / self.lines_per_second


@dataclass(frozen=True)
class Plan:
    """What is run: (lines, bytes of a body), numbers at once, rounds. All take part in `head`."""

    sizes: Sequence[tuple[int, int]]
    concurrencies: Sequence[int]
    head: tuple[int, int]
    rounds: int
    rates: Sequence[Rate]
    profiled_batches: int


FULL = Plan(
    sizes=[(50_000, 2_000), (12_000, 16_000)],
    concurrencies=[64, 256, 1_024],
    head=(2_000, 256),
    rounds=3,
    rates=[Rate(6, 60, 6), Rate(600, 3_000, 60)],
    profiled_batches=PROFILED_BATCHES,
)
QUICK = Plan(
    sizes=[(1_000, 2_000)],
    concurrencies=[32],
    head=(2_000, 32),
    rounds=1,
    rates=[Rate(600, 300, 60)],
    profiled_batches=1,
)

Costs = dict[str, list[Cost]]


def main() -> None:
    options = _options()
    plan = QUICK if options.quick else FULL
    rounds = options.rounds or plan.rounds
    if not options.quick:
        _need_everybody()
    cores = Cores.chosen()
    for name, value in described().items():
        print(f"{name:>10}: {value}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tidegate-dispatch-") as name, ExitStack() as stack:
        folder = Path(name)
        if options.profile is not None:
            lines, size = next(one for one in plan.sizes if one[1] == plan.head[0])
            job = Job(folder, lines, size, plan.head[1])
            for path in profile(job, cores, plan.profiled_batches, options.profile):
                print(f"profile: {path}", file=sys.stderr, flush=True)
            if options.profile_only:
                return
        arena = open_arena(folder, cores, stack)
        jobs = [job for job in _jobs(plan, folder) if not options.head or _is_head(job, plan)]
        sandbox = {job: _cell(job, arena, plan, rounds) for job in jobs}
        rates = [] if options.head else plan.rates
        commits = {str(rate.lines_per_second): _commits(rate, folder, cores) for rate in rates}
    head = next(job for job in sandbox if _is_head(job, plan))
    _show(sandbox)
    result = _summary(sandbox[head], commits) | {
        "ratio_to_go_client_max": _worst(sandbox),
        "cells": {job.name: _figures(costs) for job, costs in sandbox.items()},
        "rounds": rounds,
        "quick": options.quick,
        "machine": described(),
    }
    if options.picture is not None:
        options.picture.write_text(_picture(head, sandbox[head]), encoding="utf-8")
    print(RESULT + json.dumps(result), flush=True)


def _picture(job: Job, costs: Costs) -> str:
    shown = []
    for name in (OURS, OURS_PLAIN, OURS_TLS, GO, AIOHTTP, HTTPX):
        if name in costs:
            each = [cost.cpu_us_per_request for cost in costs[name]]
            is_ours = name in {OURS, OURS_PLAIN, OURS_TLS}
            shown.append(Bar(name, _median(costs[name]), min(each), max(each), is_ours))
    return bars(
        f"CPU for one request: {job.name}",
        "µs",
        shown,
        "Ours is the whole way from the shard to the durable result; the Go client only sends.",
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a trial, no figures")
    parser.add_argument("--rounds", type=int, help="how often each contestant runs in each cell")
    parser.add_argument("--head", action="store_true", help="only 2 KB and 256 at once, no rates")
    parser.add_argument(
        "--profile",
        type=Path,
        nargs="?",
        const=Path("build/bench/dispatch.svg"),
        help="write a flame graph of our process first, and tables beside it",
    )
    parser.add_argument(
        "--picture", type=Path, help="draw the medians at 2 KB and 256 at once into this SVG"
    )
    parser.add_argument("--profile-only", action="store_true", help="end after the profile")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    if options.profile_only and options.profile is None:
        parser.error("--profile-only needs --profile")
    return options


def _need_everybody() -> None:
    """Figures are worth nothing without those that they are held against."""
    if toolchain() is None or importlib.util.find_spec("aiohttp") is None:
        raise SystemExit(
            "Go or aiohttp is missing: './run bench dispatch' installs both the first time, for "
            "which it needs a network. '--quick' does without them."
        )


def _jobs(plan: Plan, folder: Path) -> list[Job]:
    return [
        Job(folder, lines, size, concurrency)
        for lines, size in plan.sizes
        for concurrency in plan.concurrencies
    ]


def _is_head(job: Job, plan: Plan) -> bool:
    return (job.body_bytes, job.concurrency) == plan.head


def _cell(job: Job, arena: Arena, plan: Plan, rounds: int) -> Costs:
    """Run every contestant once in each round, so that a noisy moment meets all of them.

    Every other round is in reverse order, because a contestant's cost depends on the one before it:
    a virtual machine, for example, fetches memory that was free for a while again from its host.
    """
    costs: Costs = defaultdict(list)
    there = list(contestants(job, arena, all_of_them=_is_head(job, plan)).items())
    for number in range(rounds):
        for name, run in reversed(there) if number % 2 else there:
            cost = run()
            costs[name].append(cost)
            print(
                f"{job.name:>22}  round {number + 1}  {name:<22} "
                f"{cost.cpu_us_per_request:9.1f} µs  {cost.requests:6} requests{_more(cost)}",
                file=sys.stderr,
                flush=True,
            )
    return dict(costs)


def _more(cost: Cost) -> str:
    if not isinstance(cost, OurCost):
        return ""
    return (
        f"  planning {cost.planning_cpu_us / cost.requests:.1f} µs, job {cost.job_seconds:.2f} s, "
        f"{cost.commits} commits, {100 * cost.system_share:.0f} % in the kernel"
    )


def _commits(rate: Rate, folder: Path, cores: Cores) -> float:
    """Return how many commits a thousand lines take while they come back at this rate."""
    job = Job(folder, rate.lines, 2_000, rate.concurrency)
    place = folder / f"rate-{rate.lines_per_second}"
    with (
        fast_upstream(folder, cores.others, delay_ms=rate.delay_ms) as upstream,
        serving(place, upstream, job.concurrency, cores.measured) as server,
    ):
        cost = run_batch(server, upstream, job)
    commits = round(1_000 * cost.commits / job.lines, 1)
    print(
        f"{rate.lines_per_second} lines/s ({job.lines / cost.seconds:.1f} were reached): "
        f"{commits} commits for 1,000 lines",
        file=sys.stderr,
        flush=True,
    )
    return commits


# Figures


def _median(costs: Sequence[Cost]) -> float:
    return statistics.median(cost.cpu_us_per_request for cost in costs)


def _spread(costs: Sequence[Cost]) -> float:
    each = [cost.cpu_us_per_request for cost in costs]
    return round((max(each) - min(each)) / statistics.median(each), 3)


def _ratio(costs: Mapping[str, Sequence[Cost]], name: str, other: str) -> float | None:
    """Return the median of the ratios within each round."""
    if name not in costs or other not in costs:
        return None
    pairs = zip(costs[name], costs[other], strict=True)
    return round(
        statistics.median(a.cpu_us_per_request / b.cpu_us_per_request for a, b in pairs), 3
    )


def _worst(sandbox: Mapping[Job, Costs]) -> float | None:
    """Return the largest ratio to the bar over all cells: the head cell is not the hardest one."""
    ratios = [_ratio(costs, OURS, GO) for costs in sandbox.values()]
    return max((ratio for ratio in ratios if ratio is not None), default=None)


def _ours(costs: Mapping[str, Sequence[Cost]]) -> list[OurCost]:
    return [cost for cost in costs[OURS] if isinstance(cost, OurCost)]


def _figures(costs: Mapping[str, Sequence[Cost]]) -> dict[str, object]:
    ours = _ours(costs)
    return {
        "cpu_us_per_request": {name: round(_median(each), 1) for name, each in costs.items()},
        "spread": {name: _spread(each) for name, each in costs.items()},
        "ratio_to_go_client": _ratio(costs, OURS, GO),
        "ratio_to_aiohttp": _ratio(costs, OURS, AIOHTTP),
        "planning_cpu_us_per_line": round(
            statistics.median(cost.planning_cpu_us / cost.requests for cost in ours), 1
        ),
        "job_seconds": round(statistics.median(cost.job_seconds for cost in ours), 2),
        "rss_mb_max": round(max(cost.rss_mb for cost in ours)),
    }


def _summary(costs: Costs, commits: Mapping[str, float]) -> dict[str, object]:
    ours = _ours(costs)
    job_seconds = statistics.median(cost.job_seconds for cost in ours)
    per_thousand = statistics.median(1_000 * cost.commits / cost.requests for cost in ours)
    return {
        "ratio_to_go_client": _ratio(costs, OURS, GO),
        "ratio_to_aiohttp": _ratio(costs, OURS, AIOHTTP),
        "ratio_to_httpx": _ratio(costs, OURS, HTTPX),
        "ratio_tls": _ratio(costs, OURS_TLS, OURS),
        "ratio_not_compiled": _ratio(costs, OURS_PLAIN, OURS),
        "cpu_us_per_request": round(_median(ours), 1),
        "planning_cpu_us_per_line": _figures(costs)["planning_cpu_us_per_line"],
        f"job_seconds_{ours[0].requests}_lines": round(job_seconds, 2),
        "commits_per_1000_lines": {**commits, "full": round(per_thousand, 1)},
        "spread": _spread(ours),
    }


def _show(sandbox: Mapping[Job, Costs]) -> None:
    """Print the medians as a table that fits into a page of the docs."""
    names = [OURS, OURS_PLAIN, OURS_TLS, GO, AIOHTTP, HTTPX]
    print("| CPU µs a request | " + " | ".join(names) + " | ours to Go |")
    print("|---|" + "--:|" * (len(names) + 1))
    for job, costs in sandbox.items():
        shown = [f"{_median(costs[name]):.1f}" if name in costs else "" for name in names]
        ratio = _ratio(costs, OURS, GO)
        print(f"| {job.name} | " + " | ".join(shown) + f" | {'' if ratio is None else ratio} |")


if __name__ == "__main__":
    main()
