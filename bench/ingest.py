"""CPU, memory and time from the first byte of an upload to the first request of its batch."""

import argparse
import json
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from _dispatch_ours import serving
from _first_request import first_request
from _ingest_input import Input
from _ingest_run import Copied, Taken, copy, take_in
from _machine import Cores, described

RESULT = "RESULT "
# Few at once: what is dispatched before the batch is seen to be planned counts as planning.
CONCURRENCY = 4
WARM_LINES = 20


@dataclass(frozen=True)
class Plan:
    """What is run: lines and bytes of each; the first is held against the copy."""

    sizes: Sequence[tuple[int, int]]
    rounds: int


FULL = Plan(
    sizes=[(50_000, 4_000), (25_000, 4_000), (100, 4_000), (50_000, 2_000), (12_000, 16_000)],
    rounds=3,
)
QUICK = Plan(sizes=[(400, 4_000), (100, 4_000)], rounds=1)


def main() -> None:
    options = _options()
    plan = QUICK if options.quick else FULL
    for name, value in described().items():
        print(f"{name:>10}: {value}", file=sys.stderr)
    taken: dict[Input, list[Taken]] = defaultdict(list)
    copied: list[Copied] = []
    with tempfile.TemporaryDirectory(prefix="tidegate-ingest-") as name, ExitStack() as stack:
        folder = Path(name)
        inputs = [Input(folder, lines, size) for lines, size in plan.sizes]
        for given in inputs:
            assert given.path.exists(), "written before anything is measured"
        upstream = stack.enter_context(first_request())
        core = Cores.chosen().measured
        server = stack.enter_context(serving(folder / "serve", upstream, CONCURRENCY, core))
        take_in(server, upstream, Input(folder, WARM_LINES, 1_000))
        for number in range(options.rounds or plan.rounds):
            copied.append(copy(server, inputs[0]))
            for given in inputs:
                taken[given].append(take_in(server, upstream, given))
                _tell(number, given, taken[given][-1])
    _show(taken)
    print(RESULT + json.dumps(summary(taken, copied) | {"quick": options.quick}), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a trial, no figures")
    parser.add_argument("--rounds", type=int, help="how often each file is taken in")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


# Figures


def summary(taken: Mapping[Input, Sequence[Taken]], copied: Sequence[Copied]) -> dict[str, object]:
    """Return medians over the rounds, and the largest growth of memory."""
    head = next(iter(taken))
    pairs = list(zip(taken[head], copied, strict=True))
    cpu = [one.cpu for one in taken[head]]
    looks = sorted(seconds for each in taken.values() for one in each for seconds in one.looks)
    return {
        "mb_per_second": round(
            head.megabytes / statistics.median(one.upload_seconds for one in taken[head])
        ),
        "cpu_seconds": round(statistics.median(cpu), 3),
        "cpu_seconds_beyond_copy": round(statistics.median(one.cpu - c.cpu for one, c in pairs), 3),
        "cpu_seconds_copy": round(statistics.median(one.cpu for one in copied), 3),
        "mb_per_second_copy": round(
            head.megabytes / statistics.median(one.seconds for one in copied)
        ),
        "rss_growth_mb_max": round(max(one.growth_mb for each in taken.values() for one in each)),
        "first_request_seconds": {
            given.name: round(statistics.median(one.first_seconds for one in each), 3)
            for given, each in taken.items()
        },
        "planning_cpu_us_per_line": {
            given.name: round(_planning_us(given, each), 1) for given, each in taken.items()
        },
        "get_ms_p99": round(1_000 * looks[len(looks) * 99 // 100], 1),
        "spread": round((max(cpu) - min(cpu)) / statistics.median(cpu), 3),
        "lines": head.lines,
        "rounds": len(copied),
        "machine": described(),
    }


def _planning_us(given: Input, each: Sequence[Taken]) -> float:
    return 1e6 * statistics.median(one.planning_cpu for one in each) / given.lines


def _tell(number: int, given: Input, taken: Taken) -> None:
    print(
        f"round {number + 1}  {given.name:>22}  upload {taken.upload_cpu:.3f} s of CPU "
        f"({given.megabytes / taken.upload_seconds:4.0f} MB/s), planning "
        f"{1e6 * taken.planning_cpu / given.lines:6.1f} µs a line, first request after "
        f"{taken.first_seconds:.3f} s, memory +{taken.growth_mb:.0f} MiB, slowest look "
        f"{1_000 * max(taken.looks, default=0.0):.0f} ms",
        file=sys.stderr,
        flush=True,
    )


def _show(taken: Mapping[Input, Sequence[Taken]]) -> None:
    """Print the medians as a table that fits into a page of the docs."""
    print("| file | upload, CPU s | planning, µs a line | first request, s | memory, MiB |")
    print("|---|--:|--:|--:|--:|")
    for given, each in taken.items():
        upload = statistics.median(one.upload_cpu for one in each)
        first = statistics.median(one.first_seconds for one in each)
        growth = max(one.growth_mb for one in each)
        print(
            f"| {given.name} | {upload:.3f} | {_planning_us(given, each):.1f} | {first:.3f} "
            f"| {growth:.0f} |"
        )


if __name__ == "__main__":
    main()
