"""What was acknowledged survives the power being cut at any operation, on SQLite and files."""

import itertools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from testkit.power.acts import Acts
from testkit.power.disk import PowerLossDisk, PowerLost
from testkit.power.files import InlineThreads, PowerLossFiles
from testkit.power.life import Open, cut_everywhere, live
from testkit.power.sweeps import compact, forget, purge, sweep
from testkit.power.vfs import sqlite_on
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.filesystem.disk import Disk
from tidegate.domain.batch import Status
from tidegate.stores.sqlite import SqliteStore, connection
from tidegate.testing.contract.stores import ManualClock
from tidegate.testing.ids import SeededIds
from tidegate.testing.inline_lanes import InlineExecutor

pytestmark = pytest.mark.slow


NUMBERS = itertools.count()


def machine(*, without: str = "") -> Open:
    """Return what opens a machine; `without` names a kind of flush that does nothing there."""

    @asynccontextmanager
    async def open_machine(disk: PowerLossDisk, clock: ManualClock) -> AsyncIterator[Acts]:
        files = PowerLossFiles(
            disk, flushes_files=without != "files", flushes_directories=without != "directories"
        )
        blobs = FilesystemBlobs(disk.root / "blobs", files=files, executor=InlineThreads())
        ids = SeededIds(random.Random(next(NUMBERS)))
        with sqlite_on(disk, flushes=without != "ledger") as vfs:
            ledger = SqliteStore(disk.root / "ledger.sqlite", clock, InlineExecutor(), vfs=vfs)
            try:
                async with ledger:
                    yield Acts(ledger, blobs, clock, ids)
            finally:
                await blobs.aclose()

    return open_machine


async def a_batch_at_work(acts: Acts) -> AsyncIterator[str]:
    yield "an empty ledger"
    file_id = await acts.upload([f"one-{number}" for number in range(5)])
    yield "uploaded"
    batch_id = await acts.create(file_id)
    yield "created"
    assert await acts.plan()
    yield "planned"
    first, second = await acts.claim(batch_id)
    yield "claimed"
    await acts.commit([(first, [1, 2])])
    yield "two lines committed"
    await acts.commit([(second, [0]), (first, [0])])
    yield "four lines committed, one shard ended"
    await acts.hand_back(second)
    yield "handed back"


async def a_successor_that_completes_it(acts: Acts) -> AsyncIterator[str]:
    (batch,) = await acts.batches()
    (shard,) = await acts.claim(batch.id)
    yield "claimed by a successor"
    await acts.commit([(shard, [1])])
    yield "all lines committed"
    assert await acts.finish()
    yield "completed"
    assert batch.error_file_id is not None
    await compact(acts, batch.error_file_id)
    yield "compacted"
    await sweep(acts)
    yield "swept"


async def a_batch_that_is_cancelled(acts: Acts) -> AsyncIterator[str]:
    file_id = await acts.upload([f"two-{number}" for number in range(4)])
    yield "uploaded again"
    batch_id = await acts.create(file_id)
    yield "created again"
    await acts.delete(file_id)
    yield "input deleted"
    assert await acts.plan()
    yield "planned from a deleted input"
    first, second = await acts.claim(batch_id)
    yield "claimed again"
    await acts.commit([(second, [0])])
    yield "one line committed"
    await sweep(acts)
    yield "swept around a batch at work"
    await acts.cancel(batch_id)
    yield "cancelling"
    await acts.commit([(first, [0, 1, 2])])
    yield "every line ended"
    assert await acts.finish()
    yield "cancelled"


async def files_that_go(acts: Acts) -> AsyncIterator[str]:
    file_id = await acts.upload(["three-0"])
    yield "uploaded once more"
    batch_id = await acts.create(file_id)
    yield "created once more"
    await acts.cancel(batch_id)
    yield "cancelling before it was planned"
    assert await acts.plan()
    yield "cancelled unplanned"
    for batch in await acts.batches():
        if batch.output_file_id is not None and batch.output_bytes:
            await acts.delete(batch.output_file_id)
            yield "output deleted"
    await sweep(acts)
    yield "swept deleted files"
    await forget(acts)
    yield "forgot batches"
    await sweep(acts)
    await purge(acts)
    yield "purged"
    # Directories that became empty went as well.
    await acts.upload(["four-0"])
    yield "uploaded into an empty house"


STAGES = (a_batch_at_work, a_successor_that_completes_it, a_batch_that_is_cancelled, files_that_go)


SEEDS = 3


async def test_what_is_not_flushed_may_all_be_gone_at_any_operation(tmp_path: Path) -> None:
    life = await live(tmp_path, machine(), STAGES)
    assert life.operations > 500, "too short a life to show much"
    assert await cut_everywhere(life, machine()) > 100


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_any_of_what_is_not_flushed_may_survive(tmp_path: Path, seed: int) -> None:
    """The power is cut a second time, while the work is taken over.

    Each seed has its own share of the operations.
    """
    life = await live(tmp_path, machine(), STAGES)

    def chance(operations: int) -> random.Random | None:
        mine = operations % SEEDS == seed
        return random.Random(f"{seed} {operations}") if mine else None

    assert await cut_everywhere(life, machine(), chance) >= life.operations // SEEDS


@pytest.mark.parametrize("kind", ["files", "directories", "ledger"])
async def test_without_a_kind_of_flush_something_is_lost(tmp_path: Path, kind: str) -> None:
    broken = machine(without=kind)
    life = await live(tmp_path, broken, STAGES)
    with pytest.raises(AssertionError, match="cut after operation"):
        await cut_everywhere(life, broken)


async def test_results_that_the_ledger_names_before_they_are_flushed_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def unflushed(self: Disk, descriptor: int) -> None:
        return

    monkeypatch.setattr(Disk, "sync_data", unflushed)
    life = await live(tmp_path, machine(), STAGES)
    with pytest.raises(AssertionError, match="cut after operation"):
        await cut_everywhere(life, machine())


async def test_an_upload_that_is_named_before_it_is_flushed_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_names(self: Disk, descriptor: int) -> None:
        with suppress(IsADirectoryError):
            self.files.size(descriptor)
            return
        self.files.sync(descriptor)

    monkeypatch.setattr(Disk, "sync", only_names)
    life = await live(tmp_path, machine(), STAGES)
    with pytest.raises(AssertionError, match="at 'uploaded'"):
        await cut_everywhere(life, machine())


async def test_a_ledger_without_full_flushes_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `synchronous = NORMAL` SQLite does not flush its log at each commit."""
    settings = connection.SQL["settings"].replace("synchronous = FULL", "synchronous = NORMAL")
    monkeypatch.setitem(connection.SQL, "settings", settings)
    life = await live(tmp_path, machine(), STAGES)
    with pytest.raises(AssertionError, match="at 'uploaded'"):
        await cut_everywhere(life, machine())


async def test_a_life_can_be_cut_while_it_is_lived(tmp_path: Path) -> None:
    """The disk fails in the middle of a call, and everything that runs on it ends there."""
    whole = await live(tmp_path, machine(), (a_batch_at_work,))
    (created,) = (moment for moment in whole.moments if moment.step == "created")
    disk = PowerLossDisk(tmp_path)
    disk.cut_power_at(created.operations + 2)
    steps: list[str] = []

    async def lived() -> None:
        async with machine()(disk, ManualClock()) as acts:
            async for step in a_batch_at_work(acts):
                steps.append(step)  # noqa: PERF401 -- those before the cut must be kept

    with pytest.raises(PowerLost):
        await lived()
    assert steps[-1] == "created"
    assert disk.operations == created.operations + 1
    async with machine()(disk.restarted(None), ManualClock()) as acts:
        (batch,) = await acts.batches()
        assert batch.status is Status.VALIDATING
