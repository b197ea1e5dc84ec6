"""Drill a: `kill -9` of a random processor at random times, again and again, during one batch."""

import random
import statistics
import time
from pathlib import Path

from _drill_children import Child, wait_until
from _drill_client import Batch, User, line, named
from _drill_ledger import Inheritance, LedgerWatch
from _drill_world import Findings, Plan, Upstream, World, say, wait_for_processor, world

PROCESSORS = 3
TWO_AT_ONCE = 0.25
TAKEOVER_MARGIN_SECONDS = 3.0
UNCOMMITTED_MAX = 500
BEGIN_SECONDS_MAX = 30.0


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    lease = 2.0 if plan.quick else 5.0
    concurrency = 24 if plan.quick else 12
    settings = {
        "processor.claims.lease_seconds": lease,
        "processor.claims.poll_seconds": lease / 8,
        "upstream.concurrency.start": concurrency,
        "upstream.concurrency.max": concurrency,
    }
    with world(folder, "a", upstream, settings) as here:
        return _Kills(plan, here, lease, concurrency).run()


class _Crew:
    """The processors at work, each with the name under which it holds claims."""

    def __init__(self, here: World, ledger: LedgerWatch) -> None:
        self._here = here
        self._ledger = ledger
        self._known: set[str] = set()
        self._all: list[tuple[Child, str]] = []

    def hire(self) -> None:
        """Start one, and wait until it works; one at a time, so that its name is known."""
        child = self._here.start_processor()
        wait_for_processor(child)
        wait_until(lambda: bool(self._new()), BEGIN_SECONDS_MAX, "a new processor is alive")
        (owner,) = self._new()
        self._known.add(owner)
        self._all.append((child, owner))

    def kill(self, chance: random.Random, count: int) -> list[Inheritance]:
        """Kill some at once; return what each of them leaves."""
        chance.shuffle(self._all)
        victims, self._all = self._all[:count], self._all[count:]
        killed_at = time.monotonic()
        for child, _ in victims:
            child.process.kill()
        for child, _ in victims:
            child.kill()
        return [self._ledger.bequeath(owner, killed_at) for _, owner in victims]

    def _new(self) -> set[str]:
        return self._ledger.living() - self._known


class _Kills:
    def __init__(self, plan: Plan, here: World, lease: float, concurrency: int) -> None:
        self._here = here
        self._chance = plan.chance("a")
        self._lease = lease
        self._concurrency = concurrency
        self._lines = plan.pick(2_500, 20_000)
        self._kills_max = plan.pick(3, 30)
        # With few kills, each of them shall meet somebody who holds something.
        self._few = plan.quick
        self._gap_seconds_max = 0.5 if plan.quick else 2.0
        self._left: list[Inheritance] = []
        self._findings = Findings()

    def run(self) -> Findings:
        here = self._here
        user = here.user(here.serve(0))
        with LedgerWatch(here.data / "ledger.db") as ledger:
            crew = _Crew(here, ledger)
            for _ in range(PROCESSORS):
                crew.hire()
            names = named("a", self._lines)
            batch = user.submit([line(name) for name in names])
            say("a", f"{self._lines} lines, {PROCESSORS} processors, claims of {self._lease:.0f} s")
            started = time.monotonic()
            self._kill_until_it_ends(user, batch.id, crew)
            batch = here.wait(user, batch.id)
        self._judge(user, batch, names, time.monotonic() - started)
        return self._findings

    def _kill_until_it_ends(self, user: User, batch_id: str, crew: _Crew) -> None:
        while len(self._left) < self._kills_max or not any(left.epochs for left in self._left):
            time.sleep(self._chance.uniform(0.0, self._gap_seconds_max))
            batch = user.get(batch_id)
            if batch.has_ended:
                return
            if self._few and not batch.completed:
                continue
            count = 2 if self._chance.random() < TWO_AT_ONCE else 1
            self._left += crew.kill(self._chance, count)
            say("a", f"kill {len(self._left)} at {batch.completed} of {batch.total} lines")
            for _ in range(count):
                crew.hire()

    def _judge(self, user: User, batch: Batch, names: list[str], seconds: float) -> None:
        findings = self._findings
        reading = findings.read(user, batch, names)
        counts = self._here.upstream.counts("a-")
        kills = len(self._left)
        bound = kills * (self._concurrency + UNCOMMITTED_MAX)
        findings.figures |= {
            "lines": len(names),
            "seconds": round(seconds, 1),
            "kills": kills,
            "lease_seconds": self._lease,
            "concurrency": self._concurrency,
            "lines_failed": reading.failed,
            "requests_repeated": counts.repeats,
            "in_flight_plus_commit_window": bound,
        }
        findings.expect(batch.status == "completed", f"the batch is {batch.status}, not completed")
        findings.expect(reading.failed == 0, f"{reading.failed} lines failed")
        findings.expect(counts.asked == len(names), f"the upstream saw {counts.asked} of the lines")
        findings.expect(counts.repeats <= bound, f"{counts.repeats} repeats are above {bound}")
        self._judge_takeovers()

    def _judge_takeovers(self) -> None:
        """Hold the first claim of another on what each dead one held to the time of a claim."""
        findings = self._findings
        heirs = [left for left in self._left if left.epochs]
        firsts = [min(left.seconds.values()) for left in heirs if left.seconds]
        lasts = [max(left.seconds.values()) for left in heirs if left.seconds]
        missed = sum(len(left.epochs) - len(left.seconds) for left in heirs)
        findings.figures |= {
            "kills_of_holders": len(heirs),
            "claims_left": sum(len(left.epochs) for left in heirs),
            "takeover_seconds_p50": round(statistics.median(firsts), 2) if firsts else None,
            "takeover_seconds_max": round(max(firsts), 2) if firsts else None,
            "takeover_last_shard_seconds_max": round(max(lasts), 2) if lasts else None,
        }
        findings.expect(bool(firsts), "nobody who was killed held anything")
        findings.expect(missed == 0, f"{missed} claims of the dead were never taken over")
        limit = self._lease + TAKEOVER_MARGIN_SECONDS
        late = [round(seconds, 2) for seconds in firsts if seconds > limit]
        findings.expect(not late, f"{len(late)} takeovers took longer than {limit:.0f} s: {late}")
