"""Checks of the machine: the data directory, its disk and file system, and open files."""

import os
import re
import resource
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from tidegate.config import Settings
from tidegate.doctor.finding import Finding, fail, ok, warn

AREA = "data directory"
FREE_BYTES_LOW = 2**30
FREE_BYTES_NONE = 64 * 2**20
FREE_INODES_LOW = 1_000
OWN_FILES = 256  # For everything but connections.
NETWORK_KINDS = frozenset(
    {"9p", "afs", "beegfs", "ceph", "cifs", "gfs2", "glusterfs", "lustre", "nfs", "nfs4", "ocfs2"}
    | {"smb3", "smbfs", "fuse.ceph", "fuse.glusterfs", "fuse.juicefs", "fuse.rclone", "fuse.s3fs"}
    | {"fuse.sshfs"}
)
VOLATILE_KINDS = frozenset({"tmpfs", "ramfs"})
MOUNTS = Path("/proc/self/mountinfo")
_ESCAPE = re.compile(r"\\([0-7]{3})")


def examine_directory(settings: Settings, *, mounts: Path = MOUNTS) -> Iterator[Finding]:
    """Check the data directory, or the place where it would be created."""
    wanted = settings.data_dir.absolute()
    place = wanted
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        yield fail(AREA, f"{place} is not a directory.", "Move it away, or set data_dir.")
        return
    if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
        yield fail(AREA, f"{place} can't be used by this user.", "Fix its owner or permissions.")
        return
    if place == wanted:
        yield from _permissions(place)
    else:
        yield ok(AREA, f"{wanted} does not exist yet; `tidegate serve` creates it.")
    yield from _space(place)
    yield _file_system(place, mounts)


def examine_limits(settings: Settings) -> Finding:
    """Check how many files a process may open."""
    connections = sum(item.limits.connections_max for item in settings.all_upstreams())
    return check_limit(
        resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        needed=settings.api.limits.connections_max + connections + OWN_FILES,
    )


def check_limit(hard: int, *, needed: int) -> Finding:
    """Check the hard limit on open files; every process raises its soft limit to it."""
    area = "open files"
    if hard == resource.RLIM_INFINITY or hard >= needed:
        shown = "no limit" if hard == resource.RLIM_INFINITY else str(hard)
        return ok(area, f"A process may open {shown}; {needed} are enough.")
    return warn(
        area,
        f"A process may open {hard}, and {needed} may be needed at once.",
        f"Raise the hard limit (`ulimit -Hn {needed}`, or LimitNOFILE of the service).",
    )


def _permissions(place: Path) -> Iterator[Finding]:
    mode = place.stat().st_mode
    shown = f"{stat.S_IMODE(mode):o}"
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield warn(
            AREA,
            f"Other users of this machine may write to {place} (mode {shown}).",
            f"chmod 700 {place}",
        )
    elif mode & (stat.S_IROTH | stat.S_IRGRP):
        yield warn(
            AREA,
            f"Other users of this machine may read {place} (mode {shown}).",
            f"chmod 700 {place}, unless that is intended.",
        )
    else:
        yield ok(AREA, f"{place} exists, for its owner alone (mode {shown}).")


def _space(place: Path) -> Iterator[Finding]:
    room = os.statvfs(place)
    yield check_space(room.f_bavail * room.f_frsize, place)
    # Some file systems count no inodes, and report 0 of 0.
    if room.f_files and room.f_favail < FREE_INODES_LOW:
        yield warn(
            "disk",
            f"Only {room.f_favail} more files can be created on the disk of {place}.",
            "Remove files, or create a file system with more inodes.",
        )


def check_space(free: int, place: Path) -> Finding:
    """Check the free bytes of the disk that holds `place`."""
    shown = f"{free / 10**9:.1f} GB"
    if free < FREE_BYTES_NONE:
        return fail("disk", f"The disk of {place} is full ({shown} free).", "Free some space.")
    if free < FREE_BYTES_LOW:
        return warn(
            "disk",
            f"The disk of {place} has {shown} free.",
            "Free some space: uploads and results stop when it is full. `tidegate gc` may help.",
        )
    return ok("disk", f"The disk of {place} has {shown} free.")


def _file_system(place: Path, mounts: Path) -> Finding:
    area = "file system"
    try:
        kind = file_system_type(place, mounts.read_text("utf-8", "replace").splitlines())
    except OSError:
        return ok(area, "The system does not report its type.")
    if kind in NETWORK_KINDS:
        return warn(
            area,
            f"{place} is on a network file system ({kind}).",
            "Use a local disk: SQLite's journal is shared memory, and its locks and flushes do "
            "not work over a network.",
        )
    if kind in VOLATILE_KINDS:
        return warn(
            area,
            f"{place} is in memory ({kind}).",
            "Use a disk: everything is lost when the machine restarts.",
        )
    return ok(area, f"{place} is on {kind or 'a file system of unknown type'}.")


def file_system_type(place: Path, mounts: Iterable[str]) -> str:
    """Return the type of the file system that holds `place`, from the lines of mountinfo."""
    best, found = -1, ""
    resolved = place.resolve()
    for line in mounts:
        left, _, right = line.partition(" - ")
        fields, kinds = left.split(" "), right.split(" ")
        if len(fields) > 4:  # noqa: PLR2004 -- the fifth field is the mount point
            point = Path(_ESCAPE.sub(lambda match: chr(int(match[1], 8)), fields[4]))
            depth = len(point.parts)
            # Of two mounts on one point the later one is on top.
            if resolved.is_relative_to(point) and depth >= best:
                best, found = depth, kinds[0]
    return found
