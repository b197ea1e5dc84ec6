"""Drill c: every processor is replaced by a new one under load, round after round."""

from pathlib import Path

from _drill_children import Child
from _drill_client import Batch, User, line, named
from _drill_world import Findings, Plan, Upstream, World, say, wait_for_processor, world

CONCURRENCY = 16


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    settings = {"upstream.concurrency.start": CONCURRENCY, "upstream.concurrency.max": CONCURRENCY}
    with world(folder, "c", upstream, settings) as here:
        return _Rolling(plan, here).run()


class _Rolling:
    def __init__(self, plan: Plan, here: World) -> None:
        self._here = here
        self._user: User = here.user(here.serve(0))
        self._count = plan.pick(2, 3)
        self._rounds = plan.pick(1, 4)
        self._lines = plan.pick(1_500, 8_000)
        self._batches: list[tuple[Batch, list[str]]] = []
        self._findings = Findings()

    def run(self) -> Findings:
        children = self._here.processors(self._count)
        self._submit()
        stops = 0
        for number in range(self._rounds):
            for index in range(len(children)):
                self._replace(children, index)
                stops += 1
            say("c", f"round {number + 1} of {self._rounds}: all {self._count} replaced")
        self._judge(stops)
        return self._findings

    def _submit(self) -> None:
        prefix = f"c-{len(self._batches)}"
        names = named(prefix, self._lines)
        self._batches.append((self._user.submit([line(name) for name in names]), names))

    def _replace(self, children: list[Child], index: int) -> None:
        """Stop one under load, as a rolling restart does, and start another."""
        if self._user.get(self._batches[-1][0].id).has_ended:
            self._submit()
        status = children[index].stop()
        self._findings.expect(status == 0, f"a processor that was asked to end gave {status}")
        children[index] = self._here.start_processor()
        wait_for_processor(children[index])

    def _judge(self, stops: int) -> None:
        findings, ended_badly, failed = self._findings, 0, 0
        for batch, names in self._batches:
            ended = self._here.wait(self._user, batch.id)
            failed += findings.read(self._user, ended, names).failed
            ended_badly += ended.status != "completed"
        repeats = self._here.upstream.counts("c-").repeats
        findings.figures |= {
            "stops": stops,
            "batches": len(self._batches),
            "lines": sum(len(names) for _, names in self._batches),
            "batches_failed_by_restart": ended_badly,
            "lines_failed": failed,
            "requests_repeated": repeats,
        }
        findings.expect(ended_badly == 0, f"{ended_badly} batches did not complete")
        findings.expect(failed == 0, f"{failed} lines failed")
        findings.expect(repeats == 0, f"{repeats} requests were sent again")
