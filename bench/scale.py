"""More processors, many small batches, one of a million lines: what grows with each, what not."""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from _fast_upstream import fast_upstream
from _go import toolchain
from _machine import Cores, described
from _scale_batches import Batches, run_batches
from _scale_large import Large, run_large
from _scale_processors import DELAY_MS, IN_FLIGHT, Fleet, run_fleet

# `./run bench` installs this extra of the package for a benchmark that names one.
EXTRA = "bench"

RESULT = "RESULT "
PROCESSORS, BATCHES, LARGE = "processors", "batches", "large"
LINES_OF_A_SMALL_BATCH = 10


@dataclass(frozen=True)
class Plan:
    """What is run: lines for each processor, small batches, lines of both large batches."""

    processors: Sequence[int]
    lines_for_each: int
    batches: int
    large: int
    usual: int
    rounds: int


FULL = Plan(
    processors=[1, 2, 4],
    lines_for_each=6_000,
    batches=1_000,
    large=1_000_000,
    usual=50_000,
    rounds=3,
)
QUICK = Plan(processors=[1, 2], lines_for_each=300, batches=20, large=4_000, usual=1_000, rounds=1)


def main() -> None:
    options = _options()
    plan = QUICK if options.quick else FULL
    if not options.quick and toolchain() is None:
        raise SystemExit(
            "Go is missing: './run bench scale' installs it the first time, for which it needs a "
            "network. '--quick' does without it."
        )
    for name, value in described().items():
        print(f"{name:>10}: {value}", file=sys.stderr)
    result: dict[str, object] = {}
    with tempfile.TemporaryDirectory(prefix="tidegate-scale-") as name:
        folder, rounds = Path(name), options.rounds or plan.rounds
        if options.part in {None, PROCESSORS}:
            result |= _processors(folder, plan, rounds)
        if options.part in {None, BATCHES}:
            result |= _batches(folder, plan)
        if options.part in {None, LARGE}:
            result |= _large(folder, plan)
    rest = {"quick": options.quick, "machine": described()}
    print(RESULT + json.dumps(result | rest), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a trial, no figures")
    parser.add_argument("--rounds", type=int, help="how often each number of processors runs")
    parser.add_argument("--part", choices=[PROCESSORS, BATCHES, LARGE], help="only this part")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


# More processors


def _processors(folder: Path, plan: Plan, rounds: int) -> dict[str, object]:
    """Let numbers of processors take turns. Nobody is pinned: they are to use all cores."""
    found: dict[int, list[Fleet]] = {count: [] for count in plan.processors}
    with fast_upstream(folder, None, delay_ms=DELAY_MS) as upstream:
        for number in range(rounds):
            for count in plan.processors:
                fleet = run_fleet(folder, upstream, count, plan.lines_for_each, None)
                found[count].append(fleet)
                print(
                    f"round {number + 1}  {count} processors  {fleet.lines_per_second:6.0f} lines/s"
                    f"  {fleet.share_of_possible:.2f} of what is possible  "
                    f"{1e6 * fleet.cpu_seconds / fleet.lines:5.1f} µs a line",
                    file=sys.stderr,
                    flush=True,
                )
    _show_processors(found)
    return processors_summary(found)


def processors_summary(found: Mapping[int, Sequence[Fleet]]) -> dict[str, object]:
    """Return how lines a second grew: the median over rounds of the ratio within a round."""
    alone = found[1]
    growth = {
        f"growth_{count}": round(
            statistics.median(
                fleet.lines_per_second / one.lines_per_second
                for fleet, one in zip(fleets, alone, strict=True)
            ),
            3,
        )
        for count, fleets in found.items()
        if count != 1
    }
    each = [
        {
            "processors": count,
            "lines": fleets[0].lines,
            "lines_per_second": round(statistics.median(f.lines_per_second for f in fleets)),
            "share_of_possible": round(statistics.median(f.share_of_possible for f in fleets), 3),
            "cpu_us_per_line": round(
                statistics.median(1e6 * f.cpu_seconds / f.lines for f in fleets), 1
            ),
        }
        for count, fleets in found.items()
    ]
    return growth | {"processors": each, "in_flight_for_each": IN_FLIGHT, "delay_ms": DELAY_MS}


def _show_processors(found: Mapping[int, Sequence[Fleet]]) -> None:
    print("| processors | lines a second | of what is possible | CPU of all for a line, µs |")
    print("|--:|--:|--:|--:|")
    for count, fleets in found.items():
        pace = statistics.median(fleet.lines_per_second for fleet in fleets)
        share = statistics.median(fleet.share_of_possible for fleet in fleets)
        cpu = statistics.median(1e6 * fleet.cpu_seconds / fleet.lines for fleet in fleets)
        print(f"| {count} | {pace:.0f} | {share:.2f} | {cpu:.1f} |")
    print()


# Many small batches


def _batches(folder: Path, plan: Plan) -> dict[str, object]:
    cores = Cores.chosen()
    with fast_upstream(folder, cores.others) as upstream:
        found = run_batches(folder, upstream, plan.batches, LINES_OF_A_SMALL_BATCH, cores.measured)
    print("| batches | a second | CPU for each, ms | create to completed, p50, ms | p99, ms |")
    print("|--:|--:|--:|--:|--:|")
    print(
        f"| {len(found.seconds_each)} of {LINES_OF_A_SMALL_BATCH} lines "
        f"| {found.batches_per_second:.1f} | {found.cpu_ms_per_batch:.1f} "
        f"| {found.percentile_ms(0.5):.0f} | {found.percentile_ms(0.99):.0f} |\n"
    )
    return {"batches": batches_summary(found)}


def batches_summary(found: Batches) -> dict[str, object]:
    """Return how fast batches went, and how long each one took."""
    return {
        "batches": len(found.seconds_each),
        "batches_per_second": round(found.batches_per_second, 1),
        "cpu_ms_per_batch": round(found.cpu_ms_per_batch, 2),
        "create_to_completed_ms_p50": round(found.percentile_ms(0.5), 1),
        "create_to_completed_ms_p99": round(found.percentile_ms(0.99), 1),
        "looks_per_batch": round(found.looks / len(found.seconds_each), 1),
    }


# One large batch


def _large(folder: Path, plan: Plan) -> dict[str, object]:
    """Run the large batch between two of the usual size, so that a change of pace meets both."""
    cores = Cores.chosen()
    with fast_upstream(folder, cores.others) as upstream:
        sizes = [plan.usual, plan.large, plan.usual]
        found = [run_large(folder, upstream, lines, cores.measured) for lines in sizes]
    print("| lines | MB | create to completed, s | CPU for a line, µs | at most, MiB |")
    print("|--:|--:|--:|--:|--:|")
    for one in found:
        print(
            f"| {one.lines} | {one.file_mb:.0f} | {one.job_seconds:.1f} "
            f"| {one.cpu_us_per_line:.1f} | {one.rss_mb:.0f} |"
        )
    print()
    usual = [found[0], found[2]]
    return large_summary(found[1], usual)


def large_summary(large: Large, usual: Sequence[Large]) -> dict[str, object]:
    """Return the cost of a line and the memory of a large batch against those of usual ones."""
    line_us = statistics.mean(one.cpu_us_per_line for one in usual)
    peaks = [one.rss_mb for one in usual]
    return {
        "cost_ratio": round(large.cpu_us_per_line / line_us, 3),
        "rss_mb_max": round(max(large.rss_mb, *peaks)),
        "rss_mb_spread": round(max(large.rss_mb, *peaks) - min(large.rss_mb, *peaks)),
        "large": [
            {
                "lines": one.lines,
                "file_mb": round(one.file_mb, 1),
                "job_seconds": round(one.job_seconds, 2),
                "planning_cpu_us_per_line": round(one.planning_cpu_us_per_line, 1),
                "dispatch_cpu_us_per_line": round(one.dispatch_cpu_us_per_line, 1),
                "rss_mb": round(one.rss_mb),
            }
            for one in (large, *usual)
        ],
    }


if __name__ == "__main__":
    main()
