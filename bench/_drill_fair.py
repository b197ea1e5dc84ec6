"""Drill g: a small batch created behind a large one ends about as soon as alone."""

import time
from pathlib import Path

from _drill_children import wait_until
from _drill_client import User, line, named
from _drill_world import Findings, Plan, Upstream, World, say, world

SMALL = 50
FACTOR = 2.0
MARGIN_SECONDS = 2.0
BEGIN_SECONDS_MAX = 30.0


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    findings = Findings()
    with world(folder, "g", upstream, {}) as here:
        user = here.user(here.serve(1))
        # The first batch of a process pays for what is loaded late.
        _small(here, user, findings, "g-first")
        alone = _small(here, user, findings, "g-alone")
        names = named("g-large", plan.pick(4_000, 20_000))
        large = user.submit([line(name) for name in names])
        wait_until(
            lambda: user.get(large.id).completed > 0, BEGIN_SECONDS_MAX, "the large batch began"
        )
        beside = _small(here, user, findings, "g-beside")
        met = not user.get(large.id).has_ended
        ended = here.wait(user, large.id)
        failed = findings.read(user, ended, names).failed
    findings.figures |= {
        "large_lines": len(names),
        "small_lines": SMALL,
        "small_batch_seconds": round(beside, 2),
        "small_batch_seconds_alone": round(alone, 2),
    }
    bound = FACTOR * alone + MARGIN_SECONDS
    findings.expect(beside <= bound, f"the small batch took {beside:.2f} s, above {bound:.2f}")
    findings.expect(met, "the large batch had ended before the small one, so nothing was shown")
    findings.expect(
        ended.status == "completed" and not failed, f"{ended.id} is {ended.status}, {failed} failed"
    )
    return findings


def _small(here: World, user: User, findings: Findings, prefix: str) -> float:
    names = named(prefix, SMALL)
    started = time.monotonic()
    batch = here.wait(user, user.submit([line(name) for name in names]).id)
    seconds = time.monotonic() - started
    say("g", f"{prefix}: {SMALL} lines in {seconds:.2f} s")
    findings.read(user, batch, names)
    findings.expect(batch.status == "completed", f"{batch.id} is {batch.status}")
    return seconds
