"""One batch on 1, 2 and 4 processors that share one ledger, before a model server that is slow."""

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from _dispatch_job import Job
from _dispatch_ours import ENDED, Serving, check, create, serving_from, upload, wait
from _fast_upstream import FastUpstream
from _machine import cpu_seconds
from memory import descendants

# The limit of a model server is that of the whole deployment, and each processor uses its share.
# The limit grows with each processor, so that what one processor may have in flight stays the same.
IN_FLIGHT = 32
DELAY_MS = 50.0
# Each look costs what is measured: few of them, against some ten seconds.
POLL_SECONDS = 0.05
BODY_BYTES = 2_000


@dataclass(frozen=True)
class Fleet:
    """What a number of processors did: `cpu_seconds` are those of all our processes."""

    processors: int
    lines: int
    seconds: float
    cpu_seconds: float

    @property
    def lines_per_second(self) -> float:
        return self.lines / self.seconds

    @property
    def share_of_possible(self) -> float:
        """By what the model server would give to as many requests in flight without a pause."""
        return self.lines_per_second / (self.processors * IN_FLIGHT * 1_000 / DELAY_MS)


def run_fleet(
    folder: Path, upstream: FastUpstream, processors: int, lines_for_each: int, core: int | None
) -> Fleet:
    """Run one batch on this many processors, long enough that starts and ends weigh little.

    Time is counted from the first look that finds the batch planned to the one that finds it ended.
    """
    place = folder / "fleet"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    job = Job(folder, lines_for_each * processors, BODY_BYTES, IN_FLIGHT)
    with serving_from(place, _settings(upstream, processors), core) as server:
        asked = upstream.requests()
        batch = create(server, upload(server, job))
        batch = wait(server, batch, {"in_progress", "finalizing", *ENDED}, POLL_SECONDS)
        begun, spent = time.monotonic(), _all_cpu_seconds(server)
        batch = wait(server, batch, ENDED, POLL_SECONDS)
        seconds, spent = time.monotonic() - begun, _all_cpu_seconds(server) - spent
        check(server, batch, job)
        if upstream.requests() - asked != job.lines:
            raise SystemExit(f"{upstream.requests() - asked} requests for {job.lines} lines.")
    return Fleet(processors, job.lines, seconds, spent)


def _all_cpu_seconds(server: Serving) -> float:
    pid = server.process.pid
    return server.cpu_seconds() + sum(cpu_seconds(child) for child in descendants(pid))


def _settings(upstream: FastUpstream, processors: int) -> Mapping[str, object]:
    limit = IN_FLIGHT * processors
    server = {"url": upstream.url, "concurrency": {"start": limit, "min": limit, "max": limit}}
    return {"processors": processors, "upstreams": {"m": server}}
