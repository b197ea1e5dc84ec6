"""CPU of a downloaded megabyte: one part, 8,000 parts and compacted, beside plain file servers."""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from _dispatch_ours import COMMAND, Serving, serving_from
from _download_client import Taken, download
from _download_files import Output, make_output
from _go import program, toolchain
from _machine import Cores, cpu_seconds, described, starting_on, stop

EXTRA = "bench"

RESULT = "RESULT "
STOP_SECONDS_MAX = 10.0
GC_SECONDS_MAX = 300.0
PEERS = Path(__file__).parent / "_download_peers.py"
MEGA = 1_000_000

ONE, MANY, COMPACTED = "tidegate, 1 part", "tidegate, many parts", "tidegate, compacted"
GO, STARLETTE = "Go net/http", "Starlette"


@dataclass(frozen=True)
class Plan:
    """What is run: bytes of the file, commits that made it, downloads by each in every round."""

    size: int
    commits: int
    rounds: int
    downloads: int


FULL = Plan(size=100 * MEGA, commits=8_000, rounds=5, downloads=5)
QUICK = Plan(size=10 * MEGA, commits=1_200, rounds=2, downloads=2)


@dataclass(frozen=True)
class Cost:
    """What one contestant's downloads of a round took, together."""

    bytes: int
    cpu_seconds: float
    taken: Sequence[Taken]

    @property
    def cpu_ms_per_mb(self) -> float:
        return 1_000 * self.cpu_seconds / (self.bytes / MEGA)

    @property
    def mb_per_second(self) -> float:
        return self.bytes / MEGA / sum(one.seconds for one in self.taken)

    @property
    def first_byte_ms(self) -> list[float]:
        return [1_000 * one.first_byte_seconds for one in self.taken]


@dataclass(frozen=True)
class Contestant:
    """The address to download from, and the process that answers."""

    url: str
    pid: int

    def run(self, downloads: int) -> Cost:
        before = cpu_seconds(self.pid)
        taken = [download(self.url) for _ in range(downloads)]
        spent = cpu_seconds(self.pid) - before
        return Cost(sum(one.length for one in taken), spent, taken)


def main() -> None:
    options = _options()
    plan = QUICK if options.quick else FULL
    if not options.quick and toolchain() is None:
        raise SystemExit(
            "Go is missing: './run bench download' installs it the first time, for which it needs "
            "a network. '--quick' does without it."
        )
    cores = Cores.chosen()
    for name, value in described().items():
        print(f"{name:>10}: {value}", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="tidegate-download-") as name, ExitStack() as stack:
        files = make_files(Path(name) / "data", plan)
        contestants = dict(_contestants(Path(name), files, cores, stack))
        _check_bytes(contestants, files)
        costs = _rounds(contestants, options.rounds or plan.rounds, plan.downloads, cores)
    _show(costs)
    result = summary(costs) | {
        "parts": {name: output.parts for name, output in files.items()},
        "megabytes": plan.size / MEGA,
        "rounds": len(costs[ONE]),
        "quick": options.quick,
        "machine": described(),
    }
    print(RESULT + json.dumps(result), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a trial, no figures")
    parser.add_argument("--rounds", type=int, help="how often each contestant takes its turn")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def make_files(data_dir: Path, plan: Plan) -> dict[str, Output]:
    """Make the three files; the collector itself compacts one before the others are there."""
    print("Making the files ...", file=sys.stderr, flush=True)
    compacted = make_output(data_dir, size=plan.size, commits=plan.commits, processors=4)
    command = [*COMMAND, "gc", "--data-dir", str(data_dir), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=GC_SECONDS_MAX)
    merged = json.loads(done.stdout)["parts_merged"]
    if not merged:
        raise SystemExit("The collector did not compact the file.")
    many = make_output(data_dir, size=plan.size, commits=plan.commits, processors=4)
    one = make_output(data_dir, size=plan.size, commits=plan.commits // 10, processors=1)
    kept = Output(
        compacted.file_id, compacted.batch_id, compacted.content, compacted.parts - merged
    )
    return {ONE: one, MANY: many, COMPACTED: kept}


def _contestants(
    folder: Path, files: Mapping[str, Output], cores: Cores, stack: ExitStack
) -> Iterator[tuple[str, Contestant]]:
    # The collector would compact the file of many parts while it is measured.
    settings = {"collector": {"enabled": False}, "upstream": {"url": "http://127.0.0.1:9"}}
    server: Serving = stack.enter_context(serving_from(folder, settings, cores.measured))
    for name, output in files.items():
        url = f"{server.api.base_url}files/{output.file_id}/content"
        yield name, Contestant(url, server.process.pid)
    plain = folder / "plain.jsonl"
    plain.write_bytes(files[ONE].content)
    peers: dict[str, list[str]] = {STARLETTE: [sys.executable, "-P", str(PEERS), str(plain)]}
    if toolchain() is not None:
        peers[GO] = ["env", "GOMAXPROCS=1", str(program("files")), f"-file={plain}"]
    for name, command in peers.items():
        yield name, stack.enter_context(_peer(command, cores.measured))


@contextmanager
def _peer(command: Sequence[str], core: int | None) -> Iterator[Contestant]:
    with starting_on(core):
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        said = process.stdout.readline().decode().split()
        if len(said) != 2 or said[0] != "ready":
            raise SystemExit(f"{command[0]} did not start; it said {said}.")
        yield Contestant(f"{said[1]}/plain.jsonl", process.pid)
    finally:
        stop(process, STOP_SECONDS_MAX)


def _check_bytes(contestants: Mapping[str, Contestant], files: Mapping[str, Output]) -> None:
    """Download from each once, before anything is timed: the right bytes, and a warm page cache."""
    for name, contestant in contestants.items():
        expected = hashlib.sha256(files.get(name, files[ONE]).content).hexdigest()
        if download(contestant.url, digest=True).digest != expected:
            raise SystemExit(f"{name} sent other bytes than were stored.")


def _rounds(
    contestants: Mapping[str, Contestant], rounds: int, downloads: int, cores: Cores
) -> dict[str, list[Cost]]:
    """Let all take turns, so that a noisy moment meets everybody."""
    costs: dict[str, list[Cost]] = defaultdict(list)
    with starting_on(cores.others):
        for number in range(rounds):
            for name, contestant in contestants.items():
                cost = contestant.run(downloads)
                costs[name].append(cost)
                print(
                    f"round {number + 1}  {name:<22} {cost.cpu_ms_per_mb:7.3f} ms/MB  "
                    f"{cost.mb_per_second:7.0f} MB/s  first byte {max(cost.first_byte_ms):.1f} ms",
                    file=sys.stderr,
                    flush=True,
                )
    return dict(costs)


# Figures


def _median(costs: Sequence[Cost], figure: Callable[[Cost], float]) -> float:
    return statistics.median(figure(cost) for cost in costs)


def _cpu(cost: Cost) -> float:
    return cost.cpu_ms_per_mb


def _ratio(costs: Mapping[str, Sequence[Cost]], name: str, other: str) -> float | None:
    """Return the median of the ratios of CPU within each round."""
    if other not in costs:
        return None
    pairs = zip(costs[name], costs[other], strict=True)
    return round(statistics.median(a.cpu_ms_per_mb / b.cpu_ms_per_mb for a, b in pairs), 3)


def _spread(costs: Sequence[Cost]) -> float:
    each = [cost.cpu_ms_per_mb for cost in costs]
    return round((max(each) - min(each)) / statistics.median(each), 3)


def summary(costs: Mapping[str, Sequence[Cost]]) -> dict[str, object]:
    """Return the figures of all; the plain names are those of the file of one part."""
    first_bytes = {
        name: [ms for cost in each for ms in cost.first_byte_ms] for name, each in costs.items()
    }
    ours = [first_bytes[name] for name in (ONE, MANY, COMPACTED)]
    return {
        "mb_per_second": round(_median(costs[ONE], lambda cost: cost.mb_per_second)),
        "cpu_ms_per_mb": round(_median(costs[ONE], _cpu), 3),
        "cpu_ms_per_mb_many_parts": round(_median(costs[MANY], _cpu), 3),
        "cpu_ms_per_mb_compacted": round(_median(costs[COMPACTED], _cpu), 3),
        "first_byte_ms_max": round(max(max(each) for each in ours), 1),
        "ratio_to_starlette": _ratio(costs, ONE, STARLETTE),
        "ratio_to_go": _ratio(costs, ONE, GO),
        "ratio_many_parts_to_one": _ratio(costs, MANY, ONE),
        "ratio_compacted_to_one": _ratio(costs, COMPACTED, ONE),
        "spread": {name: _spread(each) for name, each in costs.items()},
        "contestants": {
            name: {
                "cpu_ms_per_mb": round(_median(each, _cpu), 3),
                "mb_per_second": round(_median(each, lambda cost: cost.mb_per_second)),
                "first_byte_ms": round(statistics.median(first_bytes[name]), 2),
                "first_byte_ms_max": round(max(first_bytes[name]), 2),
            }
            for name, each in costs.items()
        },
    }


def _show(costs: Mapping[str, Sequence[Cost]]) -> None:
    print("| server | CPU ms a MB | MB/s | first byte, ms | at most |")
    print("|---|--:|--:|--:|--:|")
    for name, each in costs.items():
        first = [ms for cost in each for ms in cost.first_byte_ms]
        print(
            f"| {name} | {_median(each, _cpu):.3f} "
            f"| {_median(each, lambda cost: cost.mb_per_second):.0f} "
            f"| {statistics.median(first):.1f} | {max(first):.1f} |"
        )


if __name__ == "__main__":
    main()
