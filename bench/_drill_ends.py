"""Drill f: a cancel or expiry as a batch finishes; status, counts and lines must agree."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from _drill_client import Batch, User, line, named
from _drill_world import Findings, Plan, Upstream, World, say, world

LINES = 5
USERS = 10
PROCESSORS = 2
WINDOW_SECONDS = 1
# A user who was early waits longer the next time, and one who was late waits less, in ever smaller
# steps, so that the waits converge on that moment.
STEP_FIRST = 1.6
STEP_LAST = 1.05


@dataclass
class _Ended:
    """A batch that has ended, what it was made of, and whether its cancel was acknowledged."""

    batch: Batch
    names: Sequence[str]
    was_cancelled: bool | None


@dataclass
class _Racer:
    """One user who ends batches about when they finish."""

    user: User
    here: World
    prefix: str
    seconds: float
    step: float = STEP_FIRST
    was_early: bool | None = None
    ended: list[_Ended] = field(default_factory=list)

    def cancel(self) -> None:
        names = named(f"{self.prefix}-{len(self.ended)}", LINES)
        batch = self.user.submit([line(name) for name in names])
        time.sleep(self.seconds)
        cancelled = self.user.cancel(batch.id) is not None
        self._learn(was_early=cancelled)
        self.ended.append(_Ended(self.here.wait(self.user, batch.id), names, cancelled))

    def expire(self) -> None:
        """Let the last line of a batch land about when its window closes."""
        names = named(f"{self.prefix}-{len(self.ended)}", LINES)
        # Some land a little earlier than others, so that the window may close between them.
        delays = [int(self.seconds * (1_000 - 10 * (number % 2))) for number in range(LINES)]
        lines = [line(name, delay_ms=delay) for name, delay in zip(names, delays, strict=True)]
        file_id = self.user.upload(b"".join(lines))
        batch = self.user.create(file_id, window=f"{WINDOW_SECONDS}s")
        batch = self.here.wait(self.user, batch.id)
        self._learn(was_early=batch.status == "completed")
        self.ended.append(_Ended(batch, names, None))

    def _learn(self, *, was_early: bool) -> None:
        if self.was_early is not None and was_early != self.was_early:
            self.step = max(STEP_LAST, self.step**0.5)
        self.was_early = was_early
        self.seconds *= self.step if was_early else 1 / self.step


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    settings = {
        "batch_api.window_seconds_min": WINDOW_SECONDS,
        # What is in flight when the window closes is cut at once: the moment is sharp.
        "processor.drain.drain_seconds": 0.0,
        "upstream.concurrency.start": 64,
    }
    findings = Findings()
    with world(folder, "f", upstream, settings) as here:
        served = here.serve(0)
        here.processors(PROCESSORS)
        each = plan.pick(40, 200) // USERS
        for kind, seconds in (("cancel", 0.1), ("expire", 0.8)):
            racers = [
                _Racer(here.user(served), here, f"f-{kind}-{number}", seconds)
                for number in range(USERS)
            ]
            _race(racers, kind, each)
            _judge(findings, here.user(served), kind, racers)
    return findings


def _race(racers: Sequence[_Racer], kind: str, rounds: int) -> None:
    """Let all of them end batches at once, each one after the other."""

    def go(racer: _Racer) -> None:
        for _ in range(rounds):
            if kind == "cancel":
                racer.cancel()
            else:
                racer.expire()

    with ThreadPoolExecutor(len(racers)) as pool:
        for ended in [pool.submit(go, racer) for racer in racers]:
            ended.result()


def _judge(findings: Findings, user: User, kind: str, racers: Sequence[_Racer]) -> None:
    ended = [one for racer in racers for one in racer.ended]
    statuses = Counter(one.batch.status for one in ended)
    wrong = [what for one in ended for what in _contradictions(findings, user, one)]
    findings.unmet += wrong
    findings.figures |= {f"{kind}_races": len(ended), f"{kind}_ends": dict(statuses)}
    findings.expect(
        len(statuses) > 1, f"all {kind} races ended alike ({dict(statuses)}): no moment was met"
    )
    say("f", f"{len(ended)} {kind} races: {dict(statuses)}")


def _contradictions(findings: Findings, user: User, one: _Ended) -> list[str]:
    """Return where status, counts and lines of a batch do not agree."""
    batch = one.batch
    label = f"{batch.id} ({batch.status})"
    if batch.total == 0:
        # It ended before it was planned: then there are no lines, and no files.
        files = batch.output_file_id or batch.error_file_id
        unplanned = batch.status in {"cancelled", "expired"} and not files
        return [] if unplanned else [f"{label} has no lines"]
    reading = findings.read(user, batch, one.names)
    drain = {"cancelled": "batch_cancelled", "expired": "batch_expired"}
    mine = drain.get(batch.status)
    wrong = []
    if one.was_cancelled is not None and one.was_cancelled != (batch.status == "cancelled"):
        wrong.append(f"{label}, but its cancel was {'' if one.was_cancelled else 'not '}accepted")
    if unexpected := reading.codes.keys() - {mine}:
        wrong.append(f"{label} has lines that ended by {sorted(unexpected)}")
    if batch.status == "completed" and batch.completed != batch.total:
        wrong.append(f"{label} has {batch.completed} of {batch.total} lines completed")
    if batch.status == "expired" and not reading.codes["batch_expired"]:
        wrong.append(f"{label} has no line that expired")
    if batch.status not in {"completed", "cancelled", "expired"}:
        wrong.append(f"{label} ended in a way that nobody asked for")
    return wrong
