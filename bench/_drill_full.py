"""Drill e: a file system filled to the brim and freed; work pauses, and goes on by itself.

If the kernel lets us mount, a small file system of our own is filled. Otherwise no file may grow
beyond a bound, which the process meets as it would meet a quota, and which is lifted later.
"""

import resource
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httpx
from _drill_children import Child, wait_until
from _drill_client import Batch, User, line, named
from _drill_world import Findings, Plan, Served, Upstream, World, say, world

DISK_BYTES = 48 * 2**20
PIECE_BYTES = 2**20
# Above what the ledger's log grows to, so that the bound meets results alone.
FILE_BYTES_MAX = 24 * 2**20
SECONDS_MAX = 30.0
STILL_SECONDS = 2.0
INSUFFICIENT_STORAGE = 507


@dataclass
class _Disk:
    """How the room of a process is taken away, and given back."""

    way: str
    fill: Callable[[], None]
    free: Callable[[], None]
    is_filled: bool


def drill(plan: Plan, folder: Path, upstream: Upstream) -> Findings:
    findings = Findings()
    # Few at a time, so that the disk is filled before the batch is done.
    settings = {"upstream.concurrency.start": 8, "upstream.concurrency.max": 8}
    why_not = _why_no_mount(folder) if plan.mounts else "by --no-mount"
    with world(folder, "e", upstream, settings) as here:
        if why_not is None:
            here.data.mkdir()
            served = here.serve(1, prefix=_mounting(here.data))
            disk = _mounted(served.child, here.data)
        else:
            say("e", f"no mount here ({why_not}): files are bounded instead")
            served = here.serve(1)
            disk = _bounded(served.child)
        findings.figures |= {
            "full_disk": "filled" if why_not is None else f"skipped: {why_not}",
            "way": disk.way,
        }
        _fill_and_free(plan, here, served, disk, findings)
    return findings


def _fill_and_free(
    plan: Plan, here: World, served: Served, disk: _Disk, findings: Findings
) -> None:
    user = here.user(served)
    lines, size = (plan.pick(2_500, 4_000), 6_000) if disk.is_filled else (2_000, 20_000)
    names = named("e", lines)
    batch = user.submit([line(name, reply_bytes=size) for name in names])
    wait_until(lambda: user.get(batch.id).completed > lines // 20, SECONDS_MAX, "some progress")
    disk.fill()
    full_at = time.monotonic()
    wait_until(lambda: served.ready()[0] != httpx.codes.OK, SECONDS_MAX, "/ready shows it")
    wait_until(lambda: _shown(served, 1), SECONDS_MAX, "the metrics show it")
    paused_at = _wait_for_standstill(here, user, batch)
    say("e", f"full: {served.ready()[1].strip()!r}; work stands still at {paused_at} lines")
    _refused(findings, user, disk)
    disk.free()
    freed_at = time.monotonic()
    wait_until(lambda: served.ready()[0] == httpx.codes.OK, SECONDS_MAX, "/ready is well again")
    wait_until(lambda: user.get(batch.id).completed > paused_at, SECONDS_MAX, "work goes on")
    on_seconds = time.monotonic() - freed_at
    wait_until(lambda: _shown(served, 0), SECONDS_MAX, "the metrics are well again")
    ended = here.wait(user, batch.id)
    reading = findings.read(user, ended, names)
    repeats = here.upstream.counts("e-").repeats
    findings.figures |= {
        "lines": lines,
        "full_seconds": round(freed_at - full_at, 1),
        "lines_failed": reading.failed,
        "requests_repeated": repeats,
        "seconds_until_work_went_on": round(on_seconds, 2),
    }
    findings.expect(paused_at < lines, "the batch was done before the disk was full")
    findings.expect(ended.status == "completed", f"{ended.id} is {ended.status}")
    findings.expect(reading.failed == 0, f"{reading.failed} lines failed")
    findings.expect(repeats == 0, f"{repeats} requests were sent again")


def _shown(served: Served, value: int) -> bool:
    """Return whether the metrics show the disk as full (1) or not (0)."""
    metrics = httpx.get(f"{served.operators_url}/metrics").raise_for_status().text
    return f"tidegate_storage_full {value}.0" in metrics.splitlines()


def _wait_for_standstill(here: World, user: User, batch: Batch) -> int:
    """Wait until no line gets done; return how many are."""
    seen, since = -1, time.monotonic()

    def stands_still() -> bool:
        nonlocal seen, since
        here.children.check()
        done = user.get(batch.id).completed
        if done != seen:
            seen, since = done, time.monotonic()
        return time.monotonic() - since > STILL_SECONDS

    wait_until(stands_still, SECONDS_MAX, "work stands still")
    return seen


def _refused(findings: Findings, user: User, disk: _Disk) -> None:
    """Prove that an upload that finds no room is refused as a whole."""
    before = user.files().keys()
    data = line("e-late", padding="x" * (FILE_BYTES_MAX if not disk.is_filled else PIECE_BYTES))
    try:
        user.upload(data)
    except httpx.HTTPStatusError as refused:
        status = refused.response.status_code
        findings.expect(status == INSUFFICIENT_STORAGE, f"an upload got {status} on a full disk")
    else:
        findings.expect(False, "an upload was accepted on a full disk")
    findings.expect(user.files().keys() == before, "a refused upload left a file")


# A small file system of our own


def _mounting(place: Path) -> tuple[str, ...]:
    """Return what runs a command in a mount space of its own, with a small disk at `place`."""
    script = f'mount -t tmpfs -o size={DISK_BYTES} drill "$0" && exec "$@"'
    return (_found("unshare"), "-rm", _found("sh"), "-c", script, str(place))


def _why_no_mount(folder: Path) -> str | None:
    """Return why no disk of our own can be mounted; None where it can."""
    place = folder / "mount"
    place.mkdir()
    try:
        tried = subprocess.run(
            [*_mounting(place), _found("true")], capture_output=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    finally:
        place.rmdir()
    return tried.stderr.decode().strip() or None if tried.returncode else None


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise FileNotFoundError(f"there is no program '{program}'")
    return path


def _mounted(child: Child, place: Path) -> _Disk:
    filler = Path(f"/proc/{child.pid}/root{place}/filler")

    def fill() -> None:
        size = PIECE_BYTES
        with filler.open("wb", buffering=0) as out:
            while size:
                try:
                    out.write(b"x" * size)
                except OSError:
                    size //= 2

    return _Disk("a file system of its own", fill, filler.unlink, is_filled=True)


# Elsewhere


def _bounded(child: Child) -> _Disk:
    def bound(size: int) -> None:
        _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (size, hard))

    return _Disk(
        "a bound on the size of files",
        lambda: bound(FILE_BYTES_MAX),
        lambda: bound(resource.RLIM_INFINITY),
        is_filled=False,
    )
