"""One batch far beyond the default bounds, held against one at the default bound."""

import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from _dispatch_job import Job
from _dispatch_ours import run_batch, serving_from
from _fast_upstream import FastUpstream
from memory import Watch

CONCURRENCY = 256
# About 215 bytes a line, so that a million of them make 215 MB.
BODY_BYTES = 130
FILE_BYTES_MAX = 2**30


@dataclass(frozen=True)
class Large:
    """What a batch of a number of lines took. CPU is that of our process, polling included."""

    lines: int
    file_mb: float
    job_seconds: float
    planning_cpu_us_per_line: float
    dispatch_cpu_us_per_line: float
    rss_mb: float

    @property
    def cpu_us_per_line(self) -> float:
        return self.planning_cpu_us_per_line + self.dispatch_cpu_us_per_line


def run_large(folder: Path, upstream: FastUpstream, lines: int, core: int | None) -> Large:
    """Run one batch from upload to download in a fresh server whose bounds allow it."""
    place = folder / "large"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    job = Job(folder, lines, BODY_BYTES, CONCURRENCY)
    with serving_from(place, _settings(upstream, lines), core) as server:
        watch = Watch(server.process.pid)
        with watch.watching():
            cost = run_batch(server, upstream, job)
    shutil.rmtree(place)
    found = Large(
        lines=lines,
        file_mb=job.path.stat().st_size / 1e6,
        job_seconds=cost.job_seconds,
        planning_cpu_us_per_line=cost.planning_cpu_us / lines,
        dispatch_cpu_us_per_line=cost.cpu_us_per_request,
        rss_mb=max(cost.rss_mb, watch.all_mb),
    )
    print(
        f"{lines:9} lines, {found.file_mb:4.0f} MB  {found.job_seconds:6.1f} s  "
        f"{found.planning_cpu_us_per_line:5.1f} + {found.dispatch_cpu_us_per_line:5.1f} µs a line  "
        f"{found.rss_mb:4.0f} MiB",
        file=sys.stderr,
        flush=True,
    )
    return found


def _settings(upstream: FastUpstream, lines: int) -> Mapping[str, object]:
    """The defaults but for the bounds that a large batch needs, and for what may be in flight."""
    limit = {"start": CONCURRENCY, "min": CONCURRENCY, "max": CONCURRENCY}
    return {
        "upstreams": {"m": {"url": upstream.url, "concurrency": limit}},
        "batch_api": {"file_bytes_max": FILE_BYTES_MAX},
        "processor": {"planning": {"lines_max": max(lines, 50_000)}},
    }
