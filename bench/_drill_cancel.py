"""Drill x: how long a cancel takes with a thousand slow lines in flight."""

import statistics
import time
from pathlib import Path

from _drill_children import wait_until
from _drill_client import User, line, named
from _drill_world import Findings, Plan, Upstream, World, say, world

LINE_SECONDS = 5.0
DRAIN_SECONDS = 2.0
MARGIN_SECONDS = 2.0
START_SECONDS_MAX = 30.0


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    lines = plan.pick(300, 1_000)
    settings = {
        "processor.drain.drain_seconds": DRAIN_SECONDS,
        "processor.limits.in_flight_max": lines,
        "upstream.concurrency.start": lines,
        "upstream.concurrency.max": lines,
        "upstream.limits.connections_max": lines,
        # Each line in flight reserves room for the reply that is expected at the start.
        "processor.limits.in_flight_bytes_max": 2**30,
    }
    findings = Findings()
    with world(folder, "x", upstream, settings) as here:
        user = here.user(here.serve(1))
        seconds = [
            _cancel_one(here, user, findings, f"x-{number}", lines)
            for number in range(plan.pick(1, 5))
        ]
    findings.figures |= {
        "lines_in_flight": lines,
        "line_seconds": LINE_SECONDS,
        "drain_seconds": DRAIN_SECONDS,
        "cancels": len(seconds),
        "cancel_seconds_p50": round(statistics.median(seconds), 2),
        "cancel_seconds_max": round(max(seconds), 2),
    }
    bound = DRAIN_SECONDS + MARGIN_SECONDS
    findings.expect(max(seconds) <= bound, f"a cancel took {max(seconds):.2f} s, above {bound:.0f}")
    return findings


def _cancel_one(here: World, user: User, findings: Findings, prefix: str, lines: int) -> float:
    """Cancel when every line is in flight; return the seconds until the batch was cancelled."""
    names = named(prefix, lines)
    delay = int(LINE_SECONDS * 1_000)
    batch = user.submit([line(name, delay_ms=delay) for name in names])
    wait_until(
        lambda: here.upstream.counts(prefix).asked == lines,
        START_SECONDS_MAX,
        f"{lines} lines in flight ({here.upstream.counts(prefix).asked} are)",
    )
    started = time.monotonic()
    user.cancel(batch.id)
    ended = here.wait(user, batch.id)
    seconds = time.monotonic() - started
    say("x", f"{lines} lines in flight, cancelled after {seconds:.2f} s")
    reading = findings.read(user, ended, names)
    findings.expect(ended.status == "cancelled", f"{ended.id} is {ended.status}")
    unexpected = reading.codes.keys() - {"batch_cancelled"}
    findings.expect(not unexpected, f"{ended.id} has lines that ended by {sorted(unexpected)}")
    return seconds
