"""The doctor on the machine: permissions, space, the kind of file system, open files."""

import resource
from pathlib import Path

import pytest

from tidegate.config import Settings
from tidegate.doctor.finding import Finding, Level
from tidegate.doctor.machine import (
    FREE_BYTES_LOW,
    FREE_BYTES_NONE,
    check_limit,
    check_space,
    examine_directory,
    examine_limits,
    file_system_type,
)

MOUNTS = [
    "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
    "23 22 0:30 / /srv/my\\040data rw - nfs4 server:/x rw",
    "24 22 0:31 / /tmp rw - tmpfs tmpfs rw",
    "25 24 0:32 / /tmp rw - xfs /dev/sdb rw",
    "nonsense",
]


def looked(data_dir: Path, mounts: Path) -> dict[str, Finding]:
    settings = Settings(data_dir=data_dir)
    return {finding.area: finding for finding in examine_directory(settings, mounts=mounts)}


@pytest.mark.parametrize(
    ("place", "kind"),
    [("/", "ext4"), ("/srv/other", "ext4"), ("/srv/my data/x", "nfs4"), ("/tmp/x", "xfs")],
)
def test_the_kind_of_a_file_system_is_that_of_the_nearest_mount(place: str, kind: str) -> None:
    assert file_system_type(Path(place), MOUNTS) == kind


def test_without_mounts_the_kind_is_unknown() -> None:
    assert file_system_type(Path("/"), []) == ""


@pytest.mark.parametrize(
    ("kind", "level"), [("ext4", Level.OK), ("nfs4", Level.WARN), ("tmpfs", Level.WARN)]
)
def test_a_file_system_that_loses_writes_is_reported(
    tmp_path: Path, kind: str, level: Level
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"22 1 8:1 / / rw - {kind} /dev/sda1 rw\n")
    assert looked(tmp_path, mounts)["file system"].level is level
    assert looked(tmp_path, tmp_path / "none")["file system"].level is Level.OK


@pytest.mark.parametrize(
    ("mode", "level"), [(0o700, Level.OK), (0o750, Level.WARN), (0o770, Level.WARN)]
)
def test_a_directory_that_others_may_use_is_reported(
    tmp_path: Path, mode: int, level: Level
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    folder.chmod(mode)
    finding = looked(folder, tmp_path / "none")["data directory"]
    assert finding.level is level
    assert f"{mode:o}" in finding.message


def test_a_directory_that_is_yet_to_come_is_fine_and_is_not_made(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "yet"
    finding = looked(folder, tmp_path / "none")["data directory"]
    assert finding.level is Level.OK
    assert not folder.parent.exists()


def test_a_file_in_the_way_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    found = looked(tmp_path / "file" / "data", tmp_path / "none")
    assert [finding.level for finding in found.values()] == [Level.FAIL]


@pytest.mark.parametrize(
    ("free", "level"),
    [
        (FREE_BYTES_LOW, Level.OK),
        (FREE_BYTES_LOW - 1, Level.WARN),
        (FREE_BYTES_NONE, Level.WARN),
        (FREE_BYTES_NONE - 1, Level.FAIL),
    ],
)
def test_space_is_judged_at_its_bounds(free: int, level: Level) -> None:
    assert check_space(free, Path("/data")).level is level


@pytest.mark.parametrize(
    ("hard", "level"), [(1_000, Level.OK), (999, Level.WARN), (resource.RLIM_INFINITY, Level.OK)]
)
def test_open_files_are_judged_at_the_bound(hard: int, level: Level) -> None:
    assert check_limit(hard, needed=1_000).level is level


def test_this_machine_has_a_limit_that_can_be_judged() -> None:
    assert examine_limits(Settings()).area == "open files"
