"""Drill h: deletes race creates and downloads; readers resume while files are compacted."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
from _drill_client import Batch, User, line, named
from _drill_world import Findings, Plan, Served, Upstream, World, say, world

PROCESSORS = 2
READERS = 3
RACERS = 4
PIECE_BYTES_MAX = 20_000
LONG_BYTES = 400_000
# Every few lines make a part of their own, and every few parts are rewritten.
SETTINGS = {
    "processor.planning.shard_lines_max": 10,
    "processor.commits.lines_max": 10,
    "collector.interval_seconds": 0.2,
    "collector.sweep_seconds": 1.0,
    "collector.compact_parts_min": 2,
    "collector.compact_bytes_max": 30_000,
    "collector.download_seconds_max": 10.0,
    "upstream.concurrency.start": 24,
    "upstream.concurrency.max": 24,
}


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    findings = Findings()
    with world(folder, "h", upstream, SETTINGS) as here:
        served = here.serve(0)
        here.processors(PROCESSORS)
        _compaction(plan, here, served, findings)
        _deletes(plan, here, served, findings)
        compacted = served.child.log.read_text(errors="replace").count("file_compacted")
    findings.figures["files_compacted"] = compacted
    findings.expect(compacted > 0, "no file was compacted, so nothing was shown")
    return findings


def _together(works: list[Callable[[], None]]) -> None:
    """Run all at once, each in a thread; raise what any of them raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        for ended in [pool.submit(work) for work in works]:
            ended.result()


# Compaction under readers


class _Readers:
    """Read one growing file again and again, and keep what each reader got."""

    def __init__(self, plan: Plan, here: World, served: Served, batch: Batch) -> None:
        self._plan = plan
        self._here = here
        self._served = served
        self._batch = batch
        self._over = threading.Event()
        self.copies: list[bytes] = []
        self.pieces = 0
        self.strange: list[str] = []

    def wait(self, user: User) -> None:
        """Let them read until the batch has ended, and each once more after it."""
        try:
            self._here.wait(user, self._batch.id)
        finally:
            self._over.set()

    def read(self, number: int) -> None:
        user, chance = self._here.user(self._served), self._plan.chance(f"h{number}")
        is_last = False
        while not is_last:
            is_last = self._over.is_set()
            file_id = user.get(self._batch.id).output_file_id
            if file_id is not None:
                self.copies.append(self._resumed(user, chance, file_id))

    def _resumed(self, user: User, chance: random.Random, file_id: str) -> bytes:
        """Read from the start to what is the end by then, piece by piece."""
        got = bytearray()
        while True:
            last = len(got) + chance.randint(0, PIECE_BYTES_MAX)
            status, piece = user.fetch(file_id, f"bytes={len(got)}-{last}")
            if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return bytes(got)
            if status != httpx.codes.PARTIAL_CONTENT:
                self.strange.append(f"a range from {len(got)} got status {status}")
                return bytes(got)
            self.pieces += 1
            got += piece


def _compaction(plan: Plan, here: World, served: Served, findings: Findings) -> None:
    user = here.user(served)
    names = named("h", plan.pick(1_000, 6_000))
    batch = user.submit([line(name) for name in names])
    readers = _Readers(plan, here, served, batch)
    works: list[Callable[[], None]] = [partial(readers.read, n) for n in range(READERS)]
    _together([*works, partial(readers.wait, user)])
    ended = here.wait(user, batch.id)
    assert ended.output_file_id is not None, ended
    whole = user.content(ended.output_file_id)
    other = sum(not whole.startswith(copy) for copy in readers.copies)
    findings.read(user, ended, names)
    findings.figures |= {
        "reads_by_range": len(readers.copies),
        "pieces_read": readers.pieces,
        "reads_that_differ": other,
    }
    findings.unmet += sorted(set(readers.strange))
    findings.expect(other == 0, f"{other} of {len(readers.copies)} readers got other bytes")
    findings.expect(ended.status == "completed", f"{ended.id} is {ended.status}")
    say("h", f"{len(readers.copies)} reads in {readers.pieces} pieces, {other} differ")


# Deletes


class _Races:
    """Deletes of fresh files at about the moment in which others use them."""

    def __init__(self, plan: Plan, here: World, served: Served) -> None:
        self._plan = plan
        self._here = here
        self._served = served
        self.made: list[tuple[str, list[str]]] = []
        self.downloads: Counter[str] = Counter()
        self.strange: list[str] = []

    def go(self, number: int) -> None:
        chance, user = self._plan.chance(f"h-race{number}"), self._here.user(self._served)
        others = self._here.user(self._served), self._here.user(self._served)
        for turn in range(self._plan.pick(4, 30)):
            names = named(f"h-{number}-{turn}", 3)
            padding = "x" * chance.choice((0, LONG_BYTES))
            data = b"".join(line(name, padding=padding) for name in names)
            file_id = user.upload(data)
            wait = chance.uniform(0.0, 0.02)
            _together(
                [
                    partial(self._delete, user, file_id, wait),
                    partial(self._create, others[0], file_id, names),
                    partial(self._download, others[1], file_id, data),
                ]
            )

    def _delete(self, user: User, file_id: str, wait: float) -> None:
        time.sleep(wait)
        status = user.delete(file_id)
        if status != httpx.codes.OK:
            self.strange.append(f"a delete got status {status}")

    def _create(self, user: User, file_id: str, names: list[str]) -> None:
        self.made.append((user.create(file_id).id, names))

    def _download(self, user: User, file_id: str, data: bytes) -> None:
        status, got = user.fetch(file_id)
        if status == httpx.codes.NOT_FOUND:
            self.downloads["too late"] += 1
        elif status == httpx.codes.OK and got == data:
            self.downloads["whole"] += 1
        else:
            self.strange.append(f"a download got status {status} and {len(got)} of {len(data)}")


def _deletes(plan: Plan, here: World, served: Served, findings: Findings) -> None:
    races = _Races(plan, here, served)
    _together([partial(races.go, number) for number in range(RACERS)])
    user = here.user(served)
    drain: Counter[str] = Counter()
    for batch_id, names in races.made:
        ended = here.wait(user, batch_id)
        drain[ended.status] += 1
        if ended.status == "completed":
            findings.expect(findings.read(user, ended, names).failed == 0, f"{batch_id} failed")
        else:
            # It came after the delete: then nothing of it ran.
            empty = ended.status == "failed" and ended.total == 0
            findings.expect(empty, f"{batch_id} is {ended.status} with {ended.total} lines")
    findings.unmet += races.strange
    findings.figures |= {
        "deletes": len(races.made),
        "batches_of_deleted_files": dict(drain),
        "downloads_of_deleted_files": dict(races.downloads),
    }
    say("h", f"{len(races.made)} deletes: batches {dict(drain)}, downloads {dict(races.downloads)}")
