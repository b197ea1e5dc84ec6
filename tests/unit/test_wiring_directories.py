"""The data directory outlives power loss before anything is written into it."""

import errno
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from testkit.faulty_files import FaultyFiles
from tidegate.config import load
from tidegate.domain.errors import SettingsInvalid, StorageBroken
from tidegate.wiring.context import SCRATCH_FOLDER, make_directories, open_ports


def test_every_new_name_is_flushed_in_its_directory(tmp_path: Path) -> None:
    files = FaultyFiles()
    make_directories(tmp_path / "new" / "data", files)
    flushed = [entry for entry in files.log if entry.startswith("sync_directory")]
    assert flushed == [
        f"sync_directory {tmp_path.name}",
        "sync_directory new",
        "sync_directory data",
    ]
    assert files.open_descriptors == 0
    for folder in (tmp_path / "new" / "data", tmp_path / "new" / "data" / SCRATCH_FOLDER):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_names_that_were_there_are_flushed_again(tmp_path: Path) -> None:
    make_directories(tmp_path / "data", FaultyFiles())
    files = FaultyFiles()
    make_directories(tmp_path / "data", files)
    assert f"sync_directory {tmp_path.name}" in files.log
    assert "sync_directory data" in files.log


@pytest.mark.parametrize("code", [errno.EROFS, errno.EINVAL, errno.ENOTSUP])
def test_an_older_directory_may_lie_where_nothing_is_flushed(tmp_path: Path, code: int) -> None:
    make_directories(tmp_path / "data", FaultyFiles())
    files = FaultyFiles()
    files.fail("sync_directory", code)
    make_directories(tmp_path / "data", files)


def test_an_older_directory_may_lie_where_we_may_not_look(tmp_path: Path) -> None:
    make_directories(tmp_path / "data", FaultyFiles())
    files = FaultyFiles()
    files.fail("open_directory", errno.EACCES)
    make_directories(tmp_path / "data", files)


@pytest.mark.parametrize("is_new", [True, False])
def test_a_failed_flush_ends_the_start(tmp_path: Path, is_new: bool) -> None:  # noqa: FBT001 -- a table's column
    if not is_new:
        make_directories(tmp_path / "data", FaultyFiles())
    files = FaultyFiles()
    files.fail("sync_directory", errno.EIO)
    with pytest.raises(StorageBroken, match="check the disk"):
        make_directories(tmp_path / "data", files)
    assert files.open_descriptors == 0


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / SCRATCH_FOLDER).write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "data", tmp_path / "data"):
        with pytest.raises(SettingsInvalid, match="Not a directory"):
            make_directories(path, FaultyFiles())


@pytest.mark.parametrize("folder", ["uploads", "plans/batch_1"])
async def test_a_new_ledger_is_not_begun_beside_blobs(tmp_path: Path, folder: str) -> None:
    settings = load(environment={}, flags={"data_dir": str(tmp_path)}).settings
    blob = tmp_path / "blobs" / folder / "1"
    blob.parent.mkdir(parents=True)
    blob.touch()
    async with AsyncExitStack() as stack:
        with pytest.raises(
            SettingsInvalid, match=r"no ledger at .*ledger\.db: put the ledger back"
        ):
            await open_ports(settings, stack)
    assert not (tmp_path / "ledger.db").exists()
    blob.unlink()
    for _ in range(2):  # New, and then known.
        async with AsyncExitStack() as stack:
            await open_ports(settings, stack)
        blob.touch()
