"""The disk that forgets forgets what real ones may forget, and nothing else."""

import random
from pathlib import Path

import pytest

from testkit.power.disk import PowerLossDisk, PowerLost
from testkit.power.files import PowerLossFiles
from testkit.power.nodes import SECTOR_BYTES

ROOT = Path("/disk")
SEEDS = range(200)


def contents(disk: PowerLossDisk, folder: Path = ROOT) -> dict[str, bytes | None]:
    """Return every path below the root, a directory's with None."""
    found: dict[str, bytes | None] = {}
    for name, number in disk.names(folder).items():
        path = folder / name
        if disk.is_directory(number):
            found[str(path.relative_to(ROOT))] = None
            found |= contents(disk, path)
        else:
            found[str(path.relative_to(ROOT))] = disk.read(number, disk.size(number), 0)
    return found


def outcomes(disk: PowerLossDisk) -> list[dict[str, bytes | None]]:
    """Return what may be left of a disk, each outcome once."""
    found = [contents(disk.restarted(random.Random(seed))) for seed in SEEDS]
    return [left for index, left in enumerate(found) if left not in found[:index]]


def a_disk(**files: bytes) -> PowerLossDisk:
    """Return a disk with these files, all of it flushed."""
    disk = PowerLossDisk(ROOT)
    for name, data in files.items():
        number = disk.make(ROOT / name)
        disk.write(number, data, 0)
        disk.sync(number)
    disk.sync(0)
    return disk


def test_bytes_and_names_are_flushed_apart() -> None:
    disk = PowerLossDisk(ROOT)
    number = disk.make(ROOT / "a")
    disk.write(number, b"one", 0)
    assert contents(disk) == {"a": b"one"}
    assert contents(disk.restarted(None)) == {}
    disk.sync(number)
    assert contents(disk.restarted(None)) == {}
    disk.sync(0)
    disk.write(number, b"two", 3)
    assert contents(disk.restarted(None)) == {"a": b"one"}
    assert contents(disk) == {"a": b"onetwo"}


def test_a_name_that_is_flushed_before_its_bytes_is_an_empty_file() -> None:
    disk = PowerLossDisk(ROOT)
    disk.write(disk.make(ROOT / "a"), b"one", 0)
    disk.sync(0)
    assert contents(disk.restarted(None)) == {"a": b""}


def test_flushing_a_directory_does_not_flush_its_own_name() -> None:
    disk = PowerLossDisk(ROOT)
    folder = disk.make(ROOT / "d", directory=True)
    disk.make(ROOT / "d" / "a")
    disk.sync(folder)
    assert contents(disk.restarted(None)) == {}
    disk.sync(0)
    assert contents(disk.restarted(None)) == {"d": None, "d/a": b""}


def test_a_rename_happens_whole_or_not_at_all() -> None:
    disk = a_disk(new=b"new", old=b"old")
    disk.rename(ROOT / "new", ROOT / "old")
    assert contents(disk) == {"old": b"new"}
    before, after = {"new": b"new", "old": b"old"}, {"old": b"new"}
    assert contents(disk.restarted(None)) == before
    assert sorted(map(len, outcomes(disk))) == [1, 2]
    assert after in outcomes(disk)


def test_a_removed_file_may_come_back_and_can_be_used_while_open() -> None:
    disk = a_disk(a=b"one")
    number = disk.find(ROOT / "a")
    disk.remove(ROOT / "a")
    assert disk.read(number, 3, 0) == b"one"
    assert contents(disk.restarted(None)) == {"a": b"one"}
    assert {} in outcomes(disk)
    disk.sync(0)
    assert contents(disk.restarted(None)) == {}


def test_a_write_may_be_torn_between_sectors_and_only_there() -> None:
    old, new = b"o" * SECTOR_BYTES * 3, b"n" * SECTOR_BYTES * 3
    disk = a_disk(a=old)
    disk.write(disk.find(ROOT / "a"), new[100:-100], 100)
    lefts = [left["a"] for left in outcomes(disk)]
    sectors = [
        {left[i * SECTOR_BYTES : (i + 1) * SECTOR_BYTES] for left in lefts if left is not None}
        for i in range(3)
    ]
    assert len(lefts) == 8, "each of three sectors survives or not"
    assert [len(seen) for seen in sectors] == [2, 2, 2]


def test_a_later_write_may_survive_without_an_earlier_one() -> None:
    disk = a_disk(a=b"old")
    disk.write(disk.find(ROOT / "a"), b"x", 0)
    disk.write(disk.find(ROOT / "a"), b"z", 2)
    assert {left["a"] for left in outcomes(disk)} == {b"old", b"xld", b"olz", b"xlz"}


def test_a_file_may_have_grown_by_what_lay_on_the_disk() -> None:
    disk = a_disk(a=b"")
    disk.write(disk.find(ROOT / "a"), b"xx", 0)
    lefts = {left["a"] for left in outcomes(disk)}
    assert {b"", b"xx", b"\0\0"} < lefts
    assert all(left is not None and len(left) in {0, 2} for left in lefts)
    assert len(lefts) > 3, "no garbage"


def test_a_new_length_is_kept_once_it_is_flushed() -> None:
    disk = a_disk(a=b"abcdef")
    number = disk.find(ROOT / "a")
    disk.truncate(number, 2)
    assert {left["a"] for left in outcomes(disk)} == {b"abcdef", b"ab"}
    disk.sync(number)
    assert contents(disk.restarted(None)) == {"a": b"ab"}
    disk.truncate(number, 4)
    assert contents(disk) == {"a": b"ab\0\0"}


def test_from_the_cut_on_everything_fails_and_nothing_changes() -> None:
    disk = a_disk(a=b"one")
    number = disk.find(ROOT / "a")
    disk.cut_power_at(disk.operations + 2)
    disk.write(number, b"two", 3)
    spent = disk.operations
    for _ in range(2):
        with pytest.raises(PowerLost):
            disk.sync(number)
    for call in (lambda: disk.find(ROOT), lambda: disk.size(number), disk.hear):
        with pytest.raises(PowerLost):
            call()
    assert disk.operations == spent
    assert contents(disk.restarted(None)) == {"a": b"one"}


def test_the_tape_gives_the_same_disk_again() -> None:
    disk = a_disk(a=b"one", b=b"two")
    disk.rename(ROOT / "a", ROOT / "c")
    disk.write(disk.find(ROOT / "c"), b"!", 3)
    disk.make(ROOT / "d", directory=True)
    disk.remove(ROOT / "b")
    again = PowerLossDisk(ROOT)
    for step in disk.tape:
        step(again)
    assert again.operations == disk.operations == len(disk.tape)
    assert contents(again) == contents(disk)
    for seed in SEEDS:
        left, too = (it.restarted(random.Random(seed)) for it in (disk, again))
        assert contents(left) == contents(too)


def test_the_files_on_it_behave_as_the_machines_own(tmp_path: Path) -> None:
    disk = PowerLossDisk(ROOT)
    files = PowerLossFiles(disk)
    assert not files.make_directory(ROOT)
    assert files.make_directory(ROOT / "d")
    assert not files.make_directory(ROOT / "d")
    descriptor = files.create(ROOT / "d" / "a")
    with pytest.raises(FileExistsError):
        files.create(ROOT / "d" / "a")
    with pytest.raises(FileNotFoundError):
        files.open_to_read(ROOT / "b")
    with pytest.raises(IsADirectoryError):
        files.open_to_read(ROOT / "d")
    with pytest.raises(NotADirectoryError):
        files.open_to_read(ROOT / "d" / "a" / "x")
    with pytest.raises(NotADirectoryError):
        files.open_directory(ROOT / "d" / "a")
    with pytest.raises(OSError, match="not empty"):
        files.remove_directory(ROOT / "d")
    other = files.open_to_write(ROOT / "d" / "a")
    assert files.lock(descriptor)
    assert not files.lock(other)
    files.close(descriptor)
    assert files.lock(other)
    assert files.is_at(other, ROOT / "d" / "a")
    files.remove(ROOT / "d" / "a")
    assert not files.is_at(other, ROOT / "d" / "a")
    files.remove_directory(ROOT / "d")
    assert files.list_directory(ROOT) == []
