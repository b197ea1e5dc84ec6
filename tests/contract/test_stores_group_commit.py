"""The SQLite ledger acknowledges groups, and only what a sync has made durable."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import apsw
import pytest
from typing_extensions import override

from tidegate.domain.errors import ClaimLost, NotFound, StorageBroken, StorageFull, StoreUnavailable
from tidegate.stores.lanes import Executor, Lane, Step, ThreadExecutor, Worker
from tidegate.stores.sqlite import SqliteStore, files
from tidegate.testing.contract.stores import START, TENANT, ManualClock, a_batch, upload

DISK = "tidegate-test-disk"


class Disk(apsw.VFS):
    """The system's file layer, whose syncs and writes to the log can be held up or fail."""

    def __init__(self) -> None:
        super().__init__(DISK, "")
        self.sync_error: int | None = None
        self.full = False
        self.read_errors = 0
        self.syncs = 0
        self.syncing = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    @override
    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return DiskFile(self, name, flags)


class DiskFile(apsw.VFSFile):
    """A file of the test's disk."""

    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("", name, flags)
        self._disk = disk

    @override
    def xSync(self, flags: int) -> None:
        self._disk.syncs += 1
        self._disk.syncing.set()
        assert self._disk.gate.wait(timeout=30)
        if self._disk.sync_error is not None:
            error = apsw.IOError("the disk is broken")
            error.extendedresult = self._disk.sync_error  # type: ignore[attr-defined]  # unknown to the stubs
            raise error
        super().xSync(flags)

    @override
    def xRead(self, amount: int, offset: int) -> bytes:
        if self._disk.read_errors:
            self._disk.read_errors -= 1
            error = apsw.IOError("the disk can't be read")
            error.extendedresult = apsw.SQLITE_IOERR_READ  # type: ignore[attr-defined]  # unknown to the stubs
            raise error
        return super().xRead(amount, offset)

    @override
    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.full:
            raise apsw.FullError("the disk is full")
        super().xWrite(data, offset)


class Gated(Executor):
    """Threads whose writer can be held up, and which record how many steps go together."""

    def __init__(self) -> None:
        self._threads = ThreadExecutor()
        self.groups: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    @override
    def open_lane(self, name: str, worker: Worker) -> Lane:
        if name == "ledger-writer":
            worker = GatedWorker(self, worker)
        return self._threads.open_lane(name, worker)


class GatedWorker(Worker):
    def __init__(self, executor: Gated, inner: Worker) -> None:
        self._executor = executor
        self._inner = inner

    @override
    def run(self, steps: Sequence[Step]) -> None:
        self._executor.begun.set()
        assert self._executor.gate.wait(timeout=30)
        self._executor.groups.append(len(steps))
        self._inner.run(steps)

    @override
    def close(self) -> None:
        self._inner.close()


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk()
    yield disk
    disk.unregister()


@pytest.fixture
def executor() -> Gated:
    return Gated()


@asynccontextmanager
async def opened(path: Path, executor: Executor) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(path, ManualClock(), executor, busy_seconds=1, vfs=DISK) as store:
        yield store


@pytest.fixture
async def store(tmp_path: Path, executor: Gated, disk: Disk) -> AsyncIterator[SqliteStore]:
    assert DISK in apsw.vfs_names(), disk
    async with opened(tmp_path / "ledger.sqlite", executor) as store:
        yield store


async def begin(store: SqliteStore, number: int) -> None:
    await store.begin_upload(f"upload-{number}", tenant=TENANT, blob=f"b/{number}", at=START)


async def hold(store: SqliteStore, executor: Gated, group: asyncio.TaskGroup) -> None:
    """Occupy the writer with one call, so that what comes next makes one group."""
    executor.gate.clear()
    executor.begun.clear()
    group.create_task(begin(store, 0), name="first")
    assert await asyncio.to_thread(executor.begun.wait, 30)
    executor.groups.clear()


async def test_calls_that_wait_share_one_sync(
    store: SqliteStore, executor: Gated, disk: Disk
) -> None:
    async with asyncio.TaskGroup() as group:
        await hold(store, executor, group)
        for number in range(1, 65):
            group.create_task(begin(store, number), name=f"{number}")
        await asyncio.sleep(0)
        disk.syncs = 0
        executor.gate.set()
    assert executor.groups == [1, 64]
    assert disk.syncs == 2


async def test_a_refused_call_leaves_its_group_alone(store: SqliteStore, executor: Gated) -> None:
    file = await upload(store)
    async with asyncio.TaskGroup() as group:
        await hold(store, executor, group)
        before = group.create_task(store.create_batch(a_batch("batch_1")), name="before")
        refused = asyncio.gather(
            store.finish_upload("unknown", file, []),
            store.delete_file(TENANT, "file-unknown"),
            store.create_batch(other := a_batch("batch_3")),
            return_exceptions=True,
        )
        after = group.create_task(store.create_batch(a_batch("batch_2")), name="after")
        await asyncio.sleep(0)
        executor.gate.set()
    answers = await refused
    assert [type(answer) for answer in answers[:2]] == [ClaimLost, NotFound]
    assert answers[2] == other
    for task in (before, after):
        assert await store.get_batch(TENANT, task.result().id) == task.result()


async def test_what_a_failing_call_wrote_is_undone_and_its_group_is_not(
    store: SqliteStore, executor: Gated
) -> None:
    def write_and_fail(connection: apsw.Connection) -> None:
        files.begin_upload(connection, "upload-half", tenant=TENANT, blob="half", at=START)
        raise ValueError("half way")

    executor.gate.clear()
    answers = asyncio.gather(
        begin(store, 1), store.write(write_and_fail), begin(store, 2), return_exceptions=True
    )
    await asyncio.sleep(0)
    executor.gate.set()
    assert [type(answer) for answer in await answers] == [type(None), ValueError, type(None)]
    file = await upload(store)
    for number in (1, 2):
        other = replace(file, id=f"file-{number}", bytes=0)
        assert await store.finish_upload(f"upload-{number}", other, []) == other
    with pytest.raises(ClaimLost):
        await store.finish_upload("upload-half", replace(file, id="file-half", bytes=0), [])


async def test_a_transaction_that_sqlite_gave_up_fails_for_all_of_it(
    store: SqliteStore, executor: Gated
) -> None:
    def give_up(connection: apsw.Connection) -> None:
        connection.execute("ROLLBACK")  # As SQLite itself may, when memory or room runs out.
        raise apsw.FullError("no room")

    executor.gate.clear()
    answers = asyncio.gather(
        store.create_batch(a_batch()), store.write(give_up), begin(store, 2), return_exceptions=True
    )
    await asyncio.sleep(0)
    executor.gate.set()
    assert {type(answer) for answer in await answers} == {StorageFull}
    with pytest.raises(NotFound):
        await store.get_batch(TENANT, "batch_1")
    await store.create_batch(a_batch())


async def test_nothing_is_acknowledged_before_the_sync(
    store: SqliteStore, disk: Disk, tmp_path: Path
) -> None:
    async with asyncio.TaskGroup() as group:
        disk.gate.clear()
        disk.syncing.clear()
        task = group.create_task(store.create_batch(a_batch()), name="create")
        assert await asyncio.to_thread(disk.syncing.wait, 30)
        assert not task.done()
        other = apsw.Connection(str(tmp_path / "ledger.sqlite"))
        assert other.execute("SELECT count(*) FROM batch").fetchall() == [(0,)]
        disk.gate.set()
    assert other.execute("SELECT count(*) FROM batch").fetchall() == [(1,)]
    other.close()


@pytest.mark.parametrize("code", [apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_WRITE])
async def test_a_failed_sync_breaks_the_ledger_for_every_caller_and_for_good(
    code: int, store: SqliteStore, executor: Gated, disk: Disk, tmp_path: Path
) -> None:
    known = await store.create_batch(a_batch("batch_0"))
    executor.gate.clear()
    calls = asyncio.gather(*(begin(store, n) for n in range(5)), return_exceptions=True)
    await asyncio.sleep(0)
    disk.sync_error = code
    executor.gate.set()
    assert {type(answer) for answer in await calls} == {StorageBroken}
    disk.sync_error = None
    with pytest.raises(StorageBroken, match="end this process"):
        await begin(store, 6)
    with pytest.raises(StorageBroken):
        await store.check()
    assert await store.get_batch(TENANT, "batch_0") == known
    async with opened(tmp_path / "ledger.sqlite", ThreadExecutor()) as again:
        await again.check()
        assert await again.get_batch(TENANT, "batch_0") == known


async def test_a_failed_read_is_named_and_concerns_no_other(store: SqliteStore, disk: Disk) -> None:
    known = await store.create_batch(a_batch())
    gate = threading.Event()

    def fail(connection: apsw.Connection) -> None:
        connection.execute("PRAGMA shrink_memory").fetchall()  # Forgets the pages read so far.
        disk.read_errors = 1
        connection.execute("SELECT * FROM batch").fetchall()

    calls = asyncio.gather(
        store.read(lambda _: gate.wait(30)),
        store.get_batch(TENANT, "batch_1"),
        store.read(fail),
        store.get_batch(TENANT, "batch_1"),
        return_exceptions=True,
    )
    await asyncio.sleep(0)
    gate.set()
    _, before, failed, after = await calls
    assert (before, after) == (known, known)
    assert isinstance(failed, StoreUnavailable)
    assert "could not be read" in str(failed)
    assert isinstance(failed.__cause__, apsw.IOError)
    await store.check()


@pytest.mark.parametrize(
    "statement", ["SELECT * FROM nothing", "INSERT INTO pulse (id, at) VALUES (2, 0)"]
)
async def test_every_error_of_sqlite_has_a_name_of_ours(store: SqliteStore, statement: str) -> None:
    for call in (store.read, store.write):
        with pytest.raises(StoreUnavailable, match=r"no answer|can.t be used") as caught:
            await call(lambda db: db.execute(statement).fetchall())
        assert isinstance(caught.value.__cause__, apsw.Error)
    await store.check()


async def test_writes_succeed_when_a_full_disk_has_room(store: SqliteStore, disk: Disk) -> None:
    disk.full = True
    with pytest.raises(StorageFull, match="free some space"):
        await store.create_batch(a_batch())
    with pytest.raises(StorageFull):
        await store.check()
    with pytest.raises(NotFound):
        await store.get_batch(TENANT, "batch_1")
    disk.full = False
    await store.check()
    assert await store.create_batch(a_batch()) == await store.get_batch(TENANT, "batch_1")


async def test_a_lock_held_too_long_is_unavailable(store: SqliteStore, tmp_path: Path) -> None:
    other = apsw.Connection(str(tmp_path / "ledger.sqlite"))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailable, match="locked"):
        await store.create_batch(a_batch())
    other.execute("ROLLBACK")
    other.close()
    await store.create_batch(a_batch())


async def test_a_cancelled_caller_does_not_hold_up_the_others(
    store: SqliteStore, executor: Gated
) -> None:
    async with asyncio.TaskGroup() as group:
        await hold(store, executor, group)
        cancelled = group.create_task(store.create_batch(a_batch("batch_1")), name="cancelled")
        kept = group.create_task(store.create_batch(a_batch("batch_2")), name="kept")
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.sleep(0)
        executor.gate.set()
    assert cancelled.cancelled()
    # What was given up may or may not have happened; a repeat settles it.
    assert await store.create_batch(a_batch("batch_1")) == a_batch("batch_1")
    assert await store.get_batch(TENANT, "batch_2") == kept.result()


async def test_closing_finishes_calls_under_way(tmp_path: Path, executor: Gated) -> None:
    store = SqliteStore(tmp_path / "ledger.sqlite", ManualClock(), executor)
    await store.__aenter__()
    async with asyncio.TaskGroup() as group:
        await hold(store, executor, group)
        created = group.create_task(store.create_batch(a_batch()), name="create")
        await asyncio.sleep(0)
        closing = group.create_task(store.__aexit__(None, None, None), name="close")
        await asyncio.sleep(0)
        executor.gate.set()
    assert created.result() == a_batch()
    assert closing.done()
    for call in (store.create_batch(a_batch()), store.get_batch(TENANT, "batch_1")):
        with pytest.raises(StoreUnavailable, match="closed"):
            await call
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {"ledger-writer", "ledger-reader"}


async def test_a_ledger_that_is_not_open_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "ledger.sqlite", ManualClock(), ThreadExecutor())
    await store.__aexit__(None, None, None)
    with pytest.raises(StoreUnavailable, match="async with"):
        await store.check()
