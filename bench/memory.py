"""Memory of the whole `serve` process over batches of 1 to 50 thousand lines and one of 200 MB."""

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from _dispatch_job import Job
from _dispatch_ours import Serving, run_batch, serving
from _fast_upstream import FastUpstream, fast_upstream
from _go import toolchain
from _machine import Cores, described

# `./run bench` installs this extra of the package for a benchmark that names one.
EXTRA = "bench"

RESULT = "RESULT "
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Plan:
    """What is run: (lines, bytes of a body) of each batch, how many at once, rounds."""

    sizes: Sequence[tuple[int, int]]
    concurrency: int
    rounds: int


FULL = Plan(
    sizes=[(1_000, 2_000), (10_000, 2_000), (50_000, 2_000), (50_000, 3_900)],
    concurrency=256,
    rounds=3,
)
QUICK = Plan(sizes=[(100, 2_000), (2_000, 2_000)], concurrency=32, rounds=1)


@dataclass(frozen=True)
class Held:
    """What a server held in MiB: when it was ready, at most over a batch, and after that.

    `children_mb` is the most that processes which it started held, and is part of the maximum.
    """

    ready_mb: float
    max_mb: float
    after_mb: float
    children_mb: float


@dataclass
class Watch:
    """Looks at a process and its children again and again, as children leave no trace."""

    pid: int
    children_mb: float = 0.0
    all_mb: float = 0.0
    _stop: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look until the block ends."""
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            children = sum(rss_mb(child) for child in descendants(self.pid))
            self.children_mb = max(self.children_mb, children)
            self.all_mb = max(self.all_mb, children + rss_mb(self.pid))


def rss_mb(pid: int) -> float:
    """Return what a process holds now, 0 for one that is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def descendants(pid: int) -> Iterator[int]:
    """Yield the children of a process and theirs."""
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        found = [child for thread in threads for child in (thread / "children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return
    for child in found:
        yield int(child)
        yield from descendants(int(child))


def main() -> None:
    options = _options()
    plan = QUICK if options.quick else FULL
    if not options.quick and toolchain() is None:
        raise SystemExit(
            "Go is missing: './run bench memory' installs it the first time, for which it needs a "
            "network. '--quick' does without it."
        )
    cores = Cores.chosen()
    for name, value in described().items():
        print(f"{name:>10}: {value}", file=sys.stderr)
    held: dict[Job, list[Held]] = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="tidegate-memory-") as name:
        folder = Path(name)
        jobs = [Job(folder, lines, size, plan.concurrency) for lines, size in plan.sizes]
        with fast_upstream(folder, cores.others) as upstream:
            for number in range(options.rounds or plan.rounds):
                for job in jobs:
                    held[job].append(measure(job, upstream, cores.measured))
                    _tell(number, job, held[job][-1])
    _show(held)
    print(RESULT + json.dumps(summary(held) | {"quick": options.quick}), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small numbers: a trial, no figures")
    parser.add_argument("--rounds", type=int, help="how often each batch runs")
    options = parser.parse_args()
    if options.rounds is not None and options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def measure(job: Job, upstream: FastUpstream, core: int | None) -> Held:
    """Run one batch from upload to download in a fresh server."""
    folder = job.folder / "serve"
    shutil.rmtree(folder, ignore_errors=True)
    with serving(folder, upstream, job.concurrency, core) as server:
        return watched(server, upstream, job)


def watched(server: Serving, upstream: FastUpstream, job: Job) -> Held:
    """Run one batch, and see what the server holds."""
    pid = server.process.pid
    ready, watch = rss_mb(pid), Watch(pid)
    with watch.watching():
        run_batch(server, upstream, job)
    # The kernel keeps the maximum of the process itself exactly.
    return Held(ready, max(server.rss_mb(), watch.all_mb), rss_mb(pid), watch.children_mb)


def _megabytes(job: Job) -> float:
    return job.path.stat().st_size / 1e6


def _tell(number: int, job: Job, held: Held) -> None:
    print(
        f"round {number + 1}  {job.lines:6} lines, {_megabytes(job):5.0f} MB  ready "
        f"{held.ready_mb:4.0f}  at most {held.max_mb:4.0f}  after {held.after_mb:4.0f}  children "
        f"{held.children_mb:.0f}",
        file=sys.stderr,
        flush=True,
    )


def summary(held: Mapping[Job, Sequence[Held]]) -> dict[str, object]:
    """Return the worst of all, and medians for each batch; all in MiB."""
    peaks = [one.max_mb for each in held.values() for one in each]
    medians = [statistics.median(one.max_mb for one in each) for each in held.values()]
    return {
        "rss_mb_max": round(max(peaks)),
        "rss_mb_spread": round(max(peaks) - min(peaks)),
        "rss_mb_spread_of_medians": round(max(medians) - min(medians)),
        "rss_mb_ready": round(
            statistics.median(o.ready_mb for each in held.values() for o in each)
        ),
        "children_mb_max": round(max(one.children_mb for each in held.values() for one in each)),
        "batches": [
            {
                "lines": job.lines,
                "body_bytes": job.body_bytes,
                "rss_mb": round(statistics.median(one.max_mb for one in each)),
                "rss_mb_max": round(max(one.max_mb for one in each)),
                "rss_mb_after": round(statistics.median(one.after_mb for one in each)),
            }
            for job, each in held.items()
        ],
        "rounds": min(map(len, held.values())),
        "machine": described(),
    }


def _show(held: Mapping[Job, Sequence[Held]]) -> None:
    print("| lines | bytes of a body | ready, MiB | at most, MiB | largest | after, MiB |")
    print("|--:|--:|--:|--:|--:|--:|")
    for job, each in held.items():
        ready = statistics.median(one.ready_mb for one in each)
        peak = statistics.median(one.max_mb for one in each)
        after = statistics.median(one.after_mb for one in each)
        largest = max(one.max_mb for one in each)
        print(
            f"| {job.lines} | {job.body_bytes} | {ready:.0f} | {peak:.0f} | {largest:.0f} "
            f"| {after:.0f} |"
        )


if __name__ == "__main__":
    main()
