"""What dead writers leave behind goes; what a living one is writing stays, wherever it lives."""

import asyncio
import errno
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testkit.faulty_files import FaultyFiles
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.filesystem.store import BUFFER_BYTES
from tidegate.domain.errors import StorageBroken

# Another process that begins a blob, says so, and waits to be killed in the midst of it.
WRITES_UNTIL_KILLED = """
import asyncio, sys
from pathlib import Path
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.filesystem.store import BUFFER_BYTES

async def main():
    async with FilesystemBlobs(Path(sys.argv[1])).writer("uploads/one") as writer:
        await writer.write(bytes(BUFFER_BYTES))
        print("begun", flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
async def blobs(files: FaultyFiles, tmp_path: Path) -> AsyncIterator[FilesystemBlobs]:
    store = FilesystemBlobs(tmp_path, files=files)
    yield store
    await store.aclose()
    assert files.open_descriptors == 0, "a file was left open"


def names(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


async def test_the_draft_of_another_process_goes_once_that_is_dead(
    blobs: FilesystemBlobs, tmp_path: Path
) -> None:
    with subprocess.Popen(  # noqa: ASYNC220 -- making it takes no time that counts in a test
        [sys.executable, "-c", WRITES_UNTIL_KILLED, str(tmp_path)], stdout=subprocess.PIPE
    ) as process:
        try:
            assert process.stdout is not None
            assert await asyncio.to_thread(process.stdout.readline) == b"begun\n"
            assert await blobs.count_leftovers() == await blobs.remove_leftovers() == 0
            assert len(names(tmp_path)) == 2
        finally:
            process.kill()
            process.wait()
    assert await blobs.count_leftovers() == 1
    assert len(names(tmp_path)) == 2, "counting removed it"
    assert await blobs.remove_leftovers() == 1
    assert names(tmp_path) == []
    await blobs.put("uploads/one", b"0")
    assert await blobs.list_names("") == ["uploads/one"]


async def test_only_what_has_the_form_of_a_draft_goes(
    blobs: FilesystemBlobs, tmp_path: Path
) -> None:
    await blobs.put("a/blob", b"0")
    for name in ("a/blob~12-3", "~12-3", "a/notes~", "a/b~x-1", "a/c~12-3.bak", "d~7-7"):
        (tmp_path / name).write_text("left")
    (tmp_path / "e~1-1").mkdir()
    assert await blobs.count_leftovers() == await blobs.remove_leftovers() == 2
    assert names(tmp_path) == ["a", "a/blob", "a/b~x-1", "a/c~12-3.bak", "a/notes~", "~12-3"]


async def test_empty_directories_go_from_the_bottom_up(
    blobs: FilesystemBlobs, tmp_path: Path
) -> None:
    await blobs.put("a/kept/blob", b"0")
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "x" / "y").mkdir(parents=True)
    assert await blobs.remove_leftovers() == 0
    assert names(tmp_path) == ["a", "a/kept", "a/kept/blob"]


async def test_a_draft_that_was_taken_for_a_dead_one_is_started_again(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    other = FilesystemBlobs(tmp_path)

    def sweep() -> None:
        # Between the making of the draft and its lock.
        assert asyncio.run(other.remove_leftovers()) == 1

    files.meet("lock", sweep)
    await blobs.put("a/blob", b"0123")
    # The first goes with its directory, so the second finds no place, and the third has one.
    assert files.log.count("create blob") == 3
    assert await blobs.read("a/blob", 0, 4) == b"0123"
    assert names(tmp_path) == ["a", "a/blob"]
    await other.aclose()


async def test_a_draft_whose_lock_another_process_holds_is_started_again(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    held: list[int] = []

    def hold() -> None:
        [path] = tmp_path.glob("*~*")
        held.append(os.open(path, os.O_RDONLY))
        assert FaultyFiles().lock(held[0])

    files.meet("lock", hold)
    await blobs.put("blob", b"0123")
    assert await blobs.read("blob", 0, 4) == b"0123"
    assert await blobs.count_leftovers() == 0, "its lock is held"
    os.close(held[0])
    assert await blobs.remove_leftovers() == 1
    assert names(tmp_path) == ["blob"]


async def test_a_sweep_meets_a_check_and_a_rename_and_harms_neither(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    other = FilesystemBlobs(tmp_path)
    found: list[int] = []

    def sweep() -> None:
        found.append(asyncio.run(other.remove_leftovers()))

    for verb in ("write", "sync", "rename", "sync_directory", "open_to_read", "remove"):
        files.meet(verb, sweep)
        await blobs.check()
        files.meet(verb, sweep)
        async with blobs.writer(f"a/{verb}") as writer:
            await writer.write(bytes(BUFFER_BYTES))
            await writer.finish()
        await blobs.read(f"a/{verb}", 0, BUFFER_BYTES)
        await blobs.delete(f"a/{verb}")
    assert found == [0] * len(found)
    assert len(found) == 12
    await other.aclose()


async def test_what_can_not_be_removed_stays_for_the_next_time(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    (tmp_path / "one~1-1").write_text("left")
    for verb in ("open_to_read", "lock", "remove"):
        files.fail(verb, errno.EACCES)
        assert await blobs.remove_leftovers() == 0
    await blobs.put("blob", b"0")
    assert await blobs.remove_leftovers() == 1
    assert names(tmp_path) == ["blob"]


async def test_nothing_is_removed_from_a_disk_that_is_broken(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path
) -> None:
    (tmp_path / "one~1-1").write_text("left")
    files.fail("sync", errno.EIO)
    with pytest.raises(StorageBroken):
        await blobs.put("blob", b"0")
    with pytest.raises(StorageBroken):
        await blobs.remove_leftovers()
    assert "one~1-1" in names(tmp_path)
