"""Blobs on a disk that fails: nothing acknowledged is lost, nothing failed is ever read."""

import asyncio
import errno
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testkit.faulty_files import FaultyFiles
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.filesystem.store import BUFFER_BYTES
from tidegate.domain.errors import BlobMissing, BlobUnreadable, StorageBroken, StorageFull

PATIENCE_SECONDS = 10.0


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
async def blobs(files: FaultyFiles, tmp_path: Path) -> AsyncIterator[FilesystemBlobs]:
    store = FilesystemBlobs(tmp_path / "data", files=files, handles_max=3)
    yield store
    await store.aclose()
    assert files.open_descriptors == 0, "a file was left open"


def on_disk(root: Path) -> list[str]:
    """Return every file below the root, temporary ones too."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def modes(root: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mode & 0o777 for path in root.rglob("*")}


async def assert_refuses_to_write(blobs: FilesystemBlobs) -> None:
    for attempt in (
        blobs.put("other", b"0"),
        blobs.append("results", b"0", after=0),
        blobs.append("elsewhere", b"0", after=0),
        blobs.delete("kept"),
        blobs.check(),
    ):
        with pytest.raises(StorageBroken, match="check the disk"):
            await attempt
    async with blobs.writer("other") as writer:
        with pytest.raises(StorageBroken):
            await writer.write(bytes(BUFFER_BYTES))
    async with blobs.writer("other") as writer:
        with pytest.raises(StorageBroken):
            await writer.finish()


# The order of flushes


async def test_put_flushes_bytes_then_name(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    await blobs.put("a/b/blob", b"0")
    assert files.log == [
        "make_directory data",
        f"sync_directory {tmp_path.name}",
        "make_directory a",
        "sync_directory data",
        "make_directory b",
        "sync_directory a",
        "create blob",
        "write blob",
        "sync blob",
        "rename blob",
        "sync_directory b",
    ]
    files.log.clear()
    await blobs.put("a/b/blob2", b"0")
    assert files.log == [
        "create blob2",
        "write blob2",
        "sync blob2",
        "rename blob2",
        "sync_directory b",
    ]


async def test_append_flushes_the_name_once_and_the_bytes_each_time(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    await blobs.put("warm", b"0")
    files.log.clear()
    await blobs.append("results", b"abc", after=0)
    await blobs.append("results", b"def", after=0)
    assert files.log == [
        "open_to_write results",
        "create results",
        "sync_directory data",
        "write results",
        "sync_data results",
        "write results",
        "sync_data results",
    ]


async def test_small_writes_reach_the_disk_in_large_ones(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    async with blobs.writer("upload") as writer:
        for _ in range(2 * BUFFER_BYTES // 1024):
            await writer.write(bytes(1024))
        assert await writer.finish() == 2 * BUFFER_BYTES
    assert files.log.count("write upload") == 2


# Shortage


async def test_a_full_disk_in_mid_append_is_cut_back(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    assert await blobs.append("results", b"first", after=0) == 0
    files.write_bytes_max = 3
    files.fail("write", errno.ENOSPC, after=1)
    with pytest.raises(StorageFull, match="free some space"):
        await blobs.append("results", b"second", after=0)
    assert (tmp_path / "data" / "results").read_bytes() == b"first"
    assert await blobs.append("results", b"third", after=0) == 5
    assert await blobs.read("results", 0, 10) == b"firstthird"


async def test_junk_that_can_not_be_cut_lies_in_no_later_slice(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    await blobs.append("results", b"first", after=0)
    files.write_bytes_max = 3
    files.fail("write", errno.EDQUOT, after=1)
    files.fail("truncate", errno.ENOSPC)
    with pytest.raises(StorageFull):
        await blobs.append("results", b"second", after=0)
    assert await blobs.append("results", b"third", after=0) == 11
    assert await blobs.read("results", 11, 5) == b"third"
    assert await blobs.read("results", 0, 5) == b"first"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EMFILE])
async def test_a_put_without_room_leaves_nothing(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path, code: int
) -> None:
    files.fail("write", code)
    with pytest.raises(StorageFull):
        await blobs.put("blob", b"0")
    assert on_disk(tmp_path) == []
    await blobs.put("blob", b"0")
    assert await blobs.list_names("") == ["blob"]


async def test_a_writer_without_room_can_only_be_dropped(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    files.fail("write", errno.ENOSPC, after=1)
    async with blobs.writer("blob") as writer:
        await writer.write(bytes(BUFFER_BYTES))
        with pytest.raises(StorageFull):
            await writer.write(bytes(BUFFER_BYTES))
        with pytest.raises(AssertionError, match="after a failure"):
            await writer.finish()
    assert on_disk(tmp_path) == []


async def test_a_check_reports_a_full_disk(blobs: FilesystemBlobs, files: FaultyFiles) -> None:
    files.fail("create", errno.ENOSPC)
    with pytest.raises(StorageFull):
        await blobs.check()
    await blobs.check()


async def test_short_writes_are_completed(blobs: FilesystemBlobs, files: FaultyFiles) -> None:
    files.write_bytes_max = 7
    data = bytes(range(100))
    await blobs.put("blob", data)
    assert await blobs.append("results", data, after=0) == 0
    assert await blobs.append("results", data, after=0) == 100
    assert await blobs.read("blob", 0, 100) == data
    assert await blobs.read("results", 50, 150) == data[50:] + data


# A disk that can't be trusted any more


@pytest.mark.parametrize(
    ("verb", "code"),
    [
        ("sync_data", errno.EIO),
        ("sync_data", errno.ENOSPC),
        ("write", errno.EIO),
        ("write", errno.EROFS),
    ],
)
async def test_after_a_failed_append_nothing_is_written_any_more(
    blobs: FilesystemBlobs, files: FaultyFiles, verb: str, code: int
) -> None:
    await blobs.put("kept", b"kept")
    await blobs.append("results", b"first", after=0)
    files.fail(verb, code)
    with pytest.raises(StorageBroken):
        await blobs.append("results", b"second", after=0)
    await assert_refuses_to_write(blobs)
    assert await blobs.read("kept", 0, 4) == b"kept"
    assert await blobs.read("results", 0, 5) == b"first"


@pytest.mark.parametrize("verb", ["sync", "rename", "sync_directory"])
async def test_after_a_failed_put_nothing_is_written_any_more(
    blobs: FilesystemBlobs, files: FaultyFiles, verb: str
) -> None:
    await blobs.put("kept", b"kept")
    files.fail(verb, errno.EIO)
    with pytest.raises(StorageBroken):
        await blobs.put("blob", b"0")
    await assert_refuses_to_write(blobs)
    assert await blobs.read("kept", 0, 4) == b"kept"


@pytest.mark.parametrize(
    ("verb", "code", "words"),
    [
        ("open_to_read", errno.EIO, "Input/output error"),
        ("open_to_read", errno.EACCES, "Permission denied"),
        ("read", errno.EIO, "Input/output error"),
    ],
)
async def test_a_failed_read_is_about_one_blob_alone(
    blobs: FilesystemBlobs, files: FaultyFiles, verb: str, code: int, words: str
) -> None:
    await blobs.put("bad", b"0")
    await blobs.put("kept", b"kept")
    files.fail(verb, code)
    with pytest.raises(BlobUnreadable, match=f"'bad'.* can't be read: {words}"):
        await blobs.read("bad", 0, 1)
    assert await blobs.read("kept", 0, 4) == b"kept"
    await blobs.put("other", b"0")
    await blobs.append("results", b"0", after=0)
    await blobs.check()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM])
async def test_a_read_without_descriptors_can_be_repeated(
    blobs: FilesystemBlobs, files: FaultyFiles, code: int
) -> None:
    await blobs.put("kept", b"kept")
    files.fail("open_to_read", code)
    with pytest.raises(StorageFull, match="free some space"):
        await blobs.read("kept", 0, 4)
    assert await blobs.read("kept", 0, 4) == b"kept"


async def test_a_check_that_can_not_read_back_breaks_the_store(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    await blobs.put("kept", b"kept")
    files.fail("read", errno.EIO)
    with pytest.raises(StorageBroken, match="can't be read back"):
        await blobs.check()
    await assert_refuses_to_write(blobs)


async def test_a_check_that_reads_back_something_else_breaks_the_store(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    await blobs.put("kept", b"kept")

    def spoil() -> None:
        [probe] = (tmp_path / "data").glob("check~*")
        probe.write_bytes(b"x" * probe.stat().st_size)

    files.meet("open_to_read", spoil)
    with pytest.raises(StorageBroken, match="reads back differently"):
        await blobs.check()
    await assert_refuses_to_write(blobs)


# What others left behind


async def test_files_of_dead_processes_are_passed_over(
    blobs: FilesystemBlobs, tmp_path: Path
) -> None:
    (tmp_path / "data" / "uploads").mkdir(parents=True)
    # The name that this very process would choose first.
    left = tmp_path / "data" / "uploads" / f"one~{os.getpid()}-0"
    left.write_bytes(b"half a blob")
    assert await blobs.list_names("") == []
    async with blobs.writer("uploads/one") as writer:
        await writer.write(b"whole")
        await writer.finish()
    assert await blobs.list_names("") == ["uploads/one"]
    assert await blobs.read("uploads/one", 0, 5) == b"whole"
    assert left.read_bytes() == b"half a blob"


async def test_a_restart_appends_after_what_lies_there(tmp_path: Path) -> None:
    before = FilesystemBlobs(tmp_path)
    assert await before.append("results", b"first", after=0) == 0
    await before.aclose()
    after = FilesystemBlobs(tmp_path)
    assert await after.append("results", b"second", after=0) == 5
    assert await after.read("results", 0, 11) == b"firstsecond"
    await after.aclose()


async def test_only_the_owner_may_look(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    await blobs.put("a/blob", b"0")
    await blobs.append("a/results", b"0", after=0)
    assert modes(tmp_path) == {"data": 0o700, "a": 0o700, "blob": 0o600, "results": 0o600}


# Threads


async def test_appends_to_different_names_flush_at_the_same_time(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    both = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    files.meet("sync_data", both.wait, times=2)
    async with asyncio.TaskGroup() as group:
        group.create_task(blobs.append("one", b"1", after=0), name="one")
        group.create_task(blobs.append("two", b"2", after=0), name="two")
    assert not both.broken


@pytest.mark.parametrize("verb", ["write", "sync_data"])
async def test_a_cancelled_append_goes_on_and_keeps_its_place(
    blobs: FilesystemBlobs, files: FaultyFiles, verb: str
) -> None:
    await blobs.append("results", b"first", after=0)
    reached, going_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        loop.call_soon_threadsafe(reached.set)
        assert going_on.wait(PATIENCE_SECONDS)

    files.meet(verb, hold)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(blobs.append("results", b"second", after=0), name="append")
        await reached.wait()
        task.cancel()
    assert task.cancelled()
    async with asyncio.TaskGroup() as group:
        third = group.create_task(blobs.append("results", b"third", after=0), name="append")
        going_on.set()
    assert third.result() == 11
    assert await blobs.read("results", 0, 16) == b"firstsecondthird"


async def test_a_cancelled_writer_leaves_no_file(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    reached, going_on = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def hold() -> None:
        loop.call_soon_threadsafe(reached.set)
        assert going_on.wait(PATIENCE_SECONDS)

    async def upload() -> None:
        async with blobs.writer("upload") as writer:
            await writer.write(bytes(BUFFER_BYTES))

    files.meet("write", hold)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(upload(), name="upload")
        await reached.wait()
        task.cancel()
        loop.call_soon(going_on.set)
    assert task.cancelled()
    assert on_disk(tmp_path) == []


async def test_no_more_files_stay_open_than_the_bound(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    for turn in range(2):
        for number in range(10):
            assert await blobs.append(f"results/{number}", b"0123", after=0) == turn * 4
            assert files.open_descriptors <= 3
    assert files.open_descriptors == 3


async def test_a_directory_in_the_place_of_a_blob_is_no_blob(blobs: FilesystemBlobs) -> None:
    await blobs.put("a/blob", b"0")
    with pytest.raises(BlobMissing):
        await blobs.read("a", 0, 1)


async def test_an_open_blob_whose_file_was_unlinked_counts_as_lost(tmp_path: Path) -> None:
    blobs = FilesystemBlobs(tmp_path)
    await blobs.append("results", b"first", after=0)
    (tmp_path / "results").unlink()
    with pytest.raises(BlobMissing):
        await blobs.append("results", b"second", after=5)
    assert not (tmp_path / "results").exists()
    await blobs.aclose()
