"""Drill b: a processor is stopped for two claim times and goes on, with and without a successor."""

import signal
import time
from pathlib import Path

from _drill_children import Child, wait_until
from _drill_client import Batch, User, line, named
from _drill_world import Findings, Plan, Upstream, World, say, world

CONCURRENCY = 24
UNCOMMITTED_MAX = 500
PROGRESS_SECONDS_MAX = 30.0
POLL_SECONDS = 0.05
STOPPED_LEASES_MAX = 4
# One that is stopped in the middle of a transaction keeps everybody out: then another is tried.
TRIES_MAX = 5


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    lease = 1.5 if plan.quick else 5.0
    settings = {
        "processor.claims.lease_seconds": lease,
        "processor.claims.poll_seconds": lease / 8,
        "upstream.concurrency.start": CONCURRENCY,
        "upstream.concurrency.max": CONCURRENCY,
    }
    findings = Findings()
    findings.figures["lease_seconds"] = lease
    with world(folder, "b", upstream, settings) as here:
        pauses = _Pauses(plan, here, lease, findings)
        user = here.user(here.serve(0))
        (alone,) = here.processors(1)
        for number in range(TRIES_MAX):
            if number >= plan.pick(1, 2) and pauses.collections:
                break
            pauses.alone(user, alone, f"b-alone-{number}")
        here.processors(1)
        for number in range(TRIES_MAX):
            if number >= plan.pick(1, 2) and pauses.successions:
                break
            pauses.replaced(user, alone, f"b-replaced-{number}")
        pauses.judge()
    return findings


class _Pauses:
    def __init__(self, plan: Plan, here: World, lease: float, findings: Findings) -> None:
        self._lines = plan.pick(1_000, 4_000)
        self._chance = plan.chance("b")
        self._here = here
        self._lease = lease
        self._findings = findings
        self._pauses = 0
        self._locked = 0
        self.collections = 0
        self.successions = 0

    def alone(self, user: User, child: Child, prefix: str) -> None:
        """Stop the only processor while the collector runs beside it, again and again."""
        batch, names = self._begin(user, prefix)
        started = self._stop(child)
        while time.monotonic() - started < 2 * self._lease:
            if self._here.collect():
                self.collections += 1
            else:
                self._locked += 1
        child.send(signal.SIGCONT)
        self._end(user, batch, names)

    def replaced(self, user: User, child: Child, prefix: str) -> None:
        """Stop one of two, let the other one end its work, and then let it go on."""
        batch, names = self._begin(user, prefix)
        started = self._stop(child)
        while time.monotonic() < started + STOPPED_LEASES_MAX * self._lease:
            if time.monotonic() > started + 2 * self._lease and user.get(batch.id).has_ended:
                self.successions += 1
                break
            time.sleep(POLL_SECONDS)
        else:
            # Stopped in the middle of a transaction it keeps the ledger from everybody.
            self._locked += 1
        child.send(signal.SIGCONT)
        self._end(user, batch, names)
        # The next batch needs both: by its end the one that was stopped has learned of its loss.
        again, more = self._begin(user, f"{prefix}-after")
        self._end(user, again, more)
        self._end(user, batch, names)

    def judge(self) -> None:
        repeats = self._here.upstream.counts("b-").repeats
        bound = self._pauses * (CONCURRENCY + UNCOMMITTED_MAX)
        self._findings.figures |= {
            "pauses": self._pauses,
            "collections_meanwhile": self.collections,
            "batches_ended_by_the_other": self.successions,
            "stopped_with_the_ledger_locked": self._locked,
            "requests_repeated": repeats,
        }
        self._findings.expect(repeats <= bound, f"{repeats} repeats are above {bound}")
        self._findings.expect(self.collections > 0, "no collector ever ran during a pause")
        self._findings.expect(self.successions > 0, "no other one ever ended the work of a pause")

    def _begin(self, user: User, prefix: str) -> tuple[Batch, list[str]]:
        names = named(prefix, self._lines)
        batch = user.submit([line(name) for name in names])
        enough = self._chance.randrange(self._lines // 2)
        wait_until(
            lambda: user.get(batch.id).completed > enough,
            PROGRESS_SECONDS_MAX,
            f"the first {enough} lines of {prefix}",
        )
        return batch, names

    def _stop(self, child: Child) -> float:
        child.send(signal.SIGSTOP)
        self._pauses += 1
        say("b", f"pause {self._pauses} of {2 * self._lease:.0f} s")
        return time.monotonic()

    def _end(self, user: User, batch: Batch, names: list[str]) -> None:
        batch = self._here.wait(user, batch.id)
        reading = self._findings.read(user, batch, names)
        self._findings.expect(batch.status == "completed", f"{batch.id} is {batch.status}")
        self._findings.expect(reading.failed == 0, f"{reading.failed} lines of {batch.id} failed")
