"""Drill d: `kill -9` of the API during uploads and creates; what was acknowledged must be there."""

import random
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from _drill_client import Batch, User, line, named
from _drill_world import Findings, Plan, Served, Upstream, World, say, world

CLIENTS = 4
LINES_MAX = 40
# One line of some files is long, so that a kill also falls into the middle of an upload.
LONG_BYTES_MAX = 1_000_000
SECONDS_TO_KILL_MAX = 1.2
SETTLE_SECONDS = 60.0


@dataclass
class Attempt:
    """One upload and the batch made of it, as far as its user received their replies."""

    key: str
    names: list[str]
    long_bytes: int
    file_id: str | None = None
    batch_id: str | None = None

    @property
    def data(self) -> bytes:
        first, *others = self.names
        return line(first, padding="x" * self.long_bytes) + b"".join(map(line, others))


@dataclass
class _Client:
    """Uploads and creates until its server is gone."""

    number: int
    chance: random.Random
    attempts: list[Attempt] = field(default_factory=list)

    def work(self, url: str) -> None:
        user = User(url, timeout=20.0)
        try:
            while True:
                attempt = self._next()
                self.attempts.append(attempt)
                attempt.file_id = user.upload(attempt.data, f"{attempt.key}.jsonl")
                attempt.batch_id = create(user, attempt)
        except httpx.TransportError:
            return
        finally:
            user.close()

    def _next(self) -> Attempt:
        key = f"d-{self.number}-{len(self.attempts)}"
        long_bytes = int(LONG_BYTES_MAX * self.chance.random() ** 4)
        return Attempt(key, named(key, self.chance.randint(1, LINES_MAX)), long_bytes)


def create(user: User, attempt: Attempt) -> str:
    """Create the batch of an attempt; a repeat must give the same one."""
    assert attempt.file_id is not None
    metadata = {"key": attempt.key}
    return user.create(attempt.file_id, metadata=metadata, key=attempt.key).id


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    with world(folder, "d", upstream, {}) as here:
        return _Restarts(plan, here).run()


class _Restarts:
    def __init__(self, plan: Plan, here: World) -> None:
        self._here = here
        self._chance = plan.chance("d")
        self._rounds = plan.pick(4, 30)
        self._clients = [_Client(n, plan.chance(f"d{n}")) for n in range(CLIENTS)]
        self._findings = Findings()

    def run(self) -> Findings:
        served = self._here.serve(0)
        self._here.processors(1)
        for number in range(self._rounds):
            self._kill_under_load(served)
            served = self._here.serve(0)
            if number % 5 == self._rounds % 5:
                say("d", f"kill {number + 1} of {self._rounds}")
        self._judge(self._here.user(served))
        return self._findings

    def _kill_under_load(self, served: Served) -> None:
        with ThreadPoolExecutor(CLIENTS) as pool:
            working = [pool.submit(client.work, served.url) for client in self._clients]
            time.sleep(self._chance.uniform(0.0, SECONDS_TO_KILL_MAX))
            served.child.kill()
            for client in working:
                client.result()

    def _judge(self, user: User) -> None:
        attempts = [attempt for client in self._clients for attempt in client.attempts]
        batches = self._by_key(user.batches())
        self._ask_again(user, attempts, batches)
        lost = self._files(user, attempts)
        for attempt in attempts:
            found = batches.get(attempt.key)
            if attempt.batch_id is not None and (found is None or found.id != attempt.batch_id):
                lost += 1
        failed = self._results(user, attempts, batches)
        findings = self._findings
        acknowledged = {attempt.key for attempt in attempts if attempt.batch_id is not None}
        findings.figures |= {
            "kills": self._rounds,
            "files_acknowledged": sum(attempt.file_id is not None for attempt in attempts),
            "batches_acknowledged": sum(attempt.batch_id is not None for attempt in attempts),
            "batches_whole_though_not_acknowledged": len(batches.keys() - acknowledged),
            "acknowledged_lost": lost,
            "batches_failed_by_restart": failed,
        }
        findings.expect(lost == 0, f"{lost} acknowledged files or batches are lost or changed")
        findings.expect(failed == 0, f"{failed} batches did not complete")

    def _by_key(self, batches: list[Batch]) -> dict[str, Batch]:
        found = {batch.metadata["key"]: batch for batch in batches}
        twice = len(batches) - len(found)
        self._findings.expect(twice == 0, f"{twice} batches exist twice")
        return found

    def _ask_again(self, user: User, attempts: list[Attempt], batches: dict[str, Batch]) -> None:
        """Repeat creates that nobody answered: the same key must give the same batch."""
        unanswered = [
            attempt for attempt in attempts if attempt.file_id and attempt.batch_id is None
        ]
        for attempt in unanswered:
            made, before = create(user, attempt), batches.get(attempt.key)
            self._findings.expect(
                before is None or before.id == made, f"{attempt.key} was created twice"
            )
        self._findings.figures["creates_asked_again"] = len(unanswered)

    def _files(self, user: User, attempts: list[Attempt]) -> int:
        """Return how many acknowledged files are not as they were sent; others must be whole."""
        sent = {f"{attempt.key}.jsonl": attempt for attempt in attempts}
        inputs = {
            file_id: sent[filename]
            for file_id, (filename, _) in user.files().items()
            if filename in sent
        }
        broken = [
            file_id for file_id, attempt in inputs.items() if user.content(file_id) != attempt.data
        ]
        acknowledged = {attempt.file_id for attempt in attempts if attempt.file_id is not None}
        torn = [file_id for file_id in broken if file_id not in acknowledged]
        self._findings.expect(not torn, f"{len(torn)} files exist, but not as they were sent")
        self._findings.figures["files_whole_though_not_acknowledged"] = len(
            inputs.keys() - acknowledged
        )
        return len(acknowledged - inputs.keys()) + len(broken) - len(torn)

    def _results(self, user: User, attempts: list[Attempt], batches: dict[str, Batch]) -> int:
        """Return how many batches did not complete with each of their lines."""
        failed = 0
        for attempt in attempts:
            found = batches.get(attempt.key)
            if found is None:
                continue
            ended = self._here.wait(user, found.id, SETTLE_SECONDS)
            failed += self._findings.read(user, ended, attempt.names).failed > 0
            failed += ended.status != "completed"
        return failed
