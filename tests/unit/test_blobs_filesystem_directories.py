"""Directories of blobs: flushed before anything in them counts, and removed when they are empty."""

import errno
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from testkit.faulty_files import FaultyFiles
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.filesystem.disk import Disk
from tidegate.domain.errors import StorageBroken, StorageFull


@pytest.fixture
def files() -> FaultyFiles:
    return FaultyFiles()


@pytest.fixture
async def blobs(files: FaultyFiles, tmp_path: Path) -> AsyncIterator[FilesystemBlobs]:
    store = FilesystemBlobs(tmp_path / "data", files=files)
    yield store
    await store.aclose()
    assert files.open_descriptors == 0, "a file was left open"


def on_disk(root: Path) -> list[str]:
    """Return everything below the data directory, directories too."""
    return sorted(str(path.relative_to(root / "data")) for path in (root / "data").rglob("*"))


def files_in(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


# Without descriptors


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE])
@pytest.mark.parametrize("after", [0, 1, 2])
async def test_a_put_whose_directory_can_not_be_opened_leaves_nothing_and_breaks_nothing(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path, code: int, after: int
) -> None:
    files.fail("open_directory", code, after=after)
    with pytest.raises(StorageFull):
        await blobs.put("a/blob", b"0")
    assert files_in(tmp_path) == []
    files.log.clear()
    await blobs.put("a/blob", b"0")
    assert files.log[-2:] == ["rename blob", "sync_directory a"]
    assert ("sync_directory data" in files.log) is (after < 2)


async def test_an_append_whose_directory_can_not_be_opened_flushes_the_name_later(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    await blobs.put("warm", b"0")
    files.fail("open_directory", errno.EMFILE)
    with pytest.raises(StorageFull):
        await blobs.append("results", b"first", after=0)
    files.log.clear()
    assert await blobs.append("results", b"second", after=0) == 0
    assert "sync_directory data" in files.log


async def test_known_directories_are_forgotten_at_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.blobs.filesystem.disk.KNOWN_DIRECTORIES_MAX", 3)
    files = FaultyFiles()
    disk = Disk(tmp_path, files)
    for name in ("a", "b", "a", "c", "d"):
        disk.ensure_directory(tmp_path / name)
    assert files.log.count("make_directory a") == 1
    disk.ensure_directory(tmp_path / "a")
    assert files.log.count("make_directory a") == 2


# Removing what is empty


async def test_a_directory_goes_with_its_last_blob(blobs: FilesystemBlobs, tmp_path: Path) -> None:
    await blobs.put("top", b"0")
    await blobs.put("a/one", b"1")
    await blobs.append("a/two", b"2", after=0)
    await blobs.delete("a/one")
    assert on_disk(tmp_path) == ["a", "a/two", "top"]
    await blobs.delete("a/two")
    assert on_disk(tmp_path) == ["top"]
    await blobs.delete("top")
    assert on_disk(tmp_path) == []


async def test_the_next_blob_makes_and_flushes_the_directory_again(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    await blobs.put("a/one", b"1")
    await blobs.delete("a/one")
    files.log.clear()
    await blobs.append("a/two", b"2", after=0)
    assert files.log.index("make_directory a") < files.log.index("sync_directory data")
    assert files.log.index("sync_directory data") < files.log.index("sync_data two")


async def test_a_directory_in_use_is_not_flushed_again(
    blobs: FilesystemBlobs, files: FaultyFiles
) -> None:
    await blobs.put("a/kept", b"0")
    await blobs.put("a/gone", b"1")
    await blobs.delete("a/gone")
    files.log.clear()
    await blobs.put("a/next", b"2")
    assert "sync_directory data" not in files.log


@pytest.mark.parametrize("code", [errno.EBUSY, errno.EACCES, errno.ENOENT])
async def test_a_directory_that_can_not_be_removed_harms_nothing(
    blobs: FilesystemBlobs, files: FaultyFiles, code: int
) -> None:
    await blobs.put("a/one", b"1")
    files.fail("remove_directory", code)
    await blobs.delete("a/one")
    await blobs.put("a/two", b"2")
    assert await blobs.list_names("") == ["a/two"]


@pytest.mark.parametrize("way", ["put", "append"])
async def test_a_directory_removed_before_the_file_is_made_is_made_again(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path, way: str
) -> None:
    await blobs.put("a/b/old", b"0")
    disk = Disk(tmp_path / "data", files)

    def remove() -> None:  # As another process does that deletes the last blob there.
        (tmp_path / "data" / "a" / "b" / "old").unlink()
        disk.remove_if_empty(tmp_path / "data" / "a" / "b")
        disk.remove_if_empty(tmp_path / "data" / "a")

    files.meet("create", remove)
    files.log.clear()
    if way == "put":
        await blobs.put("a/b/new", b"1")
    else:
        await blobs.append("a/b/new", b"1", after=0)
    assert await blobs.read("a/b/new", 0, 1) == b"1"
    assert on_disk(tmp_path) == ["a", "a/b", "a/b/new"]
    made = [entry for entry in files.log if entry.startswith("make_directory")]
    assert made[-2:] == ["make_directory a", "make_directory b"]


@pytest.mark.parametrize("way", ["put", "append"])
async def test_a_parent_directory_that_another_process_removed_is_made_again(
    blobs: FilesystemBlobs, files: FaultyFiles, tmp_path: Path, way: str
) -> None:
    await blobs.put("a/b/old", b"0")
    await blobs.delete("a/b/old")
    # This process still knows it; a collector in another one has found it empty.
    Disk(tmp_path / "data", FaultyFiles()).remove_if_empty(tmp_path / "data" / "a")
    assert on_disk(tmp_path) == []
    files.log.clear()
    if way == "put":
        await blobs.put("a/c/new", b"1")
    else:
        await blobs.append("a/c/new", b"1", after=0)
    assert await blobs.read("a/c/new", 0, 1) == b"1"
    made = [entry for entry in files.log if entry.startswith("make_directory")]
    assert made[-2:] == ["make_directory a", "make_directory c"]


@pytest.mark.parametrize("times", [3, 4])
async def test_a_directory_may_be_removed_as_often_as_the_bound_allows(
    blobs: FilesystemBlobs,
    files: FaultyFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    times: int,
) -> None:
    monkeypatch.setattr("tidegate.blobs.filesystem.disk.DIRECTORY_TRIES_MAX", 3)
    # Once in the way of every new blob, and three times with the lock.
    files.meet("create", (tmp_path / "data" / "a").rmdir, times=times)
    if times == 3:
        await blobs.put("a/blob", b"1")
        assert await blobs.read("a/blob", 0, 1) == b"1"
    else:
        with pytest.raises(StorageBroken):
            await blobs.put("a/blob", b"1")


def test_a_directory_made_again_by_another_thread_is_flushed_before_it_counts(
    files: FaultyFiles, tmp_path: Path
) -> None:
    disk = Disk(tmp_path, files)
    folder = tmp_path / "a"
    disk.ensure_directory(folder)

    def replace() -> None:  # Removed, and made by one who has not come to flushing its name.
        disk.remove_if_empty(folder)
        folder.mkdir()

    files.meet("create", replace)
    files.log.clear()
    files.close(disk.create(folder / "blob"))
    assert files.log[-2:] == ["make_directory a", f"sync_directory {tmp_path.name}"]


def test_a_file_whose_directory_can_not_be_flushed_is_dropped(
    files: FaultyFiles, tmp_path: Path
) -> None:
    disk = Disk(tmp_path, files)
    folder = tmp_path / "a"
    disk.ensure_directory(folder)

    def replace() -> None:
        disk.remove_if_empty(folder)
        folder.mkdir()

    files.meet("create", replace)
    files.fail("open_directory", errno.EMFILE)
    with pytest.raises(OSError, match="Too many open files"):
        disk.create(folder / "blob")
    assert files.open_descriptors == 0
    assert list(folder.iterdir()) == []
