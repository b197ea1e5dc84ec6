"""The real processor loses its power somewhere in its work, and another one takes over."""

import asyncio
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from testkit.power.disk import PowerLossDisk, PowerLost
from testkit.power.files import InlineThreads, PowerLossFiles
from testkit.power.vfs import sqlite_on
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.domain.batch import Status
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.deployment import Deployment, ok, request_line
from tidegate.testing.ids import SeededIds
from tidegate.testing.inline_lanes import InlineExecutor
from tidegate.testing.loop import LoopClock, run_virtual
from tidegate.upstreams.base import Call, Reply

LINES = 25
CUTS = 40


@dataclass(slots=True)
class Restarts:
    """The replies that users got, and what the model server saw, over all restarts of one disk."""

    acknowledged: list[str] = field(default_factory=list)
    finished: bool = False
    requests: int = 0

    async def answer(self, call: Call) -> Reply:
        self.requests += 1
        await asyncio.sleep(0.01 * (self.requests % 5))
        return ok()


async def life(disk: PowerLossDisk, lives: Restarts, seed: int) -> None:
    """Start a deployment, submit two batches, or see those through that are there already."""
    clock = LoopClock(asyncio.get_running_loop())
    blobs = FilesystemBlobs(
        disk.root / "blobs", files=PowerLossFiles(disk), executor=InlineThreads()
    )
    with sqlite_on(disk) as vfs:
        try:
            async with SqliteStore(
                disk.root / "ledger.sqlite", clock, InlineExecutor(), vfs=vfs
            ) as ledger:
                ids = SeededIds(random.Random(seed))
                deployment = Deployment(ledger, blobs, MemoryPubSub(), clock, ids)
                await see_through(deployment, lives)
        finally:
            await blobs.aclose()


async def see_through(deployment: Deployment, lives: Restarts) -> None:
    async with deployment.processor(lives.answer):
        while len(lives.acknowledged) < 2:
            lines = [request_line(f"line-{number}") for number in range(LINES)]
            lives.acknowledged.append((await deployment.submit(lines)).id)
        for batch_id in lives.acknowledged:
            batch = await deployment.end_of(batch_id, within_seconds=600.0)
            assert batch.status is Status.COMPLETED, batch
            assert batch.counts.completed == batch.counts.total == LINES
            assert len(await deployment.results(batch)) == LINES
    lives.finished = True


@contextmanager
def until_power_is_lost() -> Iterator[None]:
    try:
        yield
    except PowerLost:
        return
    except BaseExceptionGroup as group:
        others = group.split(PowerLost)[1]
        if others is not None:
            raise others from group


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Count what a life without a cut takes."""
    disk = PowerLossDisk(tmp_path_factory.mktemp("whole"))
    run_virtual(life(disk, Restarts(), 0))
    assert disk.operations > 5 * CUTS, "too few operations for this many power losses"
    return disk.operations


@pytest.mark.parametrize("seed", range(CUTS))
def test_another_processor_finishes_what_lost_its_power(
    tmp_path: Path, operations: int, seed: int
) -> None:
    """Each seed cuts somewhere in another stretch of the life, and once more while taking over."""
    rng = random.Random(seed)
    lives = Restarts()
    disk = PowerLossDisk(tmp_path)
    disk.cut_power_at(1 + operations * seed // CUTS + rng.randint(0, operations // CUTS))
    for attempt in range(3):
        with until_power_is_lost():
            run_virtual(life(disk, lives, seed * 3 + attempt))
        if lives.finished:
            break
        disk = disk.restarted(rng if seed % 2 else None)
        if attempt == 0:
            disk.cut_power_at(rng.randint(1, operations))
    assert lives.finished
