"""Children of the drills: each has a session of its own, and is ended by its pid for sure."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
POLL_SECONDS = 0.02
TOLD_LINES = 3

# Runs in the child before the command: where the kernel can, a child dies with who started it.
_LAUNCH = """
import ctypes, os, sys
try:
    ctypes.CDLL(None).prctl(1, 9)
except AttributeError:
    pass
os.execv(sys.argv[1], sys.argv[1:])
"""


class DrillFailed(Exception):
    """The drill itself can't go on: a process did not start, or something never came to pass."""


def wait_until(true: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition; return how long it took.

    Raises:
        DrillFailed: it did not come true in time.
    """
    started = time.monotonic()
    while not true():
        if time.monotonic() - started > seconds:
            raise DrillFailed(f"Not within {seconds:.0f} s: {what}.")
        time.sleep(POLL_SECONDS)
    return time.monotonic() - started


@dataclass(eq=False)
class Child:
    """One process of ours and the file that its output goes to."""

    process: subprocess.Popen[bytes]
    log: Path
    was_ended: bool = False

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it as a power cut would: nothing of it runs after this returns."""
        self.was_ended = True
        self.process.kill()
        self.process.wait(STOP_SECONDS_MAX)

    def stop(self) -> int:
        """Ask it to end, and return its exit status."""
        self.was_ended = True
        self.process.terminate()
        return self.process.wait(STOP_SECONDS_MAX)

    def wait_for(self, text: str) -> str:
        """Return the first line of its output that holds `text`.

        Raises:
            DrillFailed: it ended, or never wrote it.
        """

        def lines() -> list[str]:
            written = self.log.read_text(errors="replace")
            return [line for line in written.splitlines(keepends=True) if text in line]

        def is_there() -> bool:
            if self.process.poll() is not None and not lines():
                raise DrillFailed(f"A process ended at its start: {self.log_text()}")
            return any(line.endswith("\n") for line in lines())

        wait_until(is_there, START_SECONDS_MAX, f"'{text}' in {self.log.name}: {self.log_text()}")
        return lines()[0].rstrip("\n")

    def log_text(self) -> str:
        """Return the last lines of its output."""
        return " / ".join(self.log.read_text(errors="replace").splitlines()[-TOLD_LINES:])


class Children:
    """Every process of a drill. When the block ends, however it ends, none of them is left."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._all: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        for child in self._all:
            try:
                # The group was made for this child: what it started itself ends with it.
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        for child in self._all:
            child.process.wait(STOP_SECONDS_MAX)

    def check(self) -> None:
        """Prove that every child we did not end is alive.

        Raises:
            DrillFailed: a process ended by itself.
        """
        for child in self._all:
            if not child.is_alive and not child.was_ended:
                raise DrillFailed(
                    f"A process ended by itself ({child.log.name}): {child.log_text()}"
                )

    def start(
        self,
        name: str,
        command: list[str],
        *,
        prefix: tuple[str, ...] = (),
        extra: Mapping[str, str] | None = None,
    ) -> Child:
        """Run a Python command line, such as `-m tidegate serve`, after `prefix` if given."""
        log = self.folder / f"{name}-{len(self._all)}.log"
        inner = [sys.executable, *command]
        launched = [sys.executable, "-S", "-c", _LAUNCH]
        launched += [*prefix, *inner] if prefix else inner
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TIDEGATE_")}
        with log.open("wb") as out:
            process = subprocess.Popen(
                launched,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**kept, **(extra or {})},
                start_new_session=True,
            )
        child = Child(process, log)
        self._all.append(child)
        return child

    def run(self, name: str, command: list[str], seconds: float) -> Child:
        """Run a command to its end.

        Raises:
            DrillFailed: it did not end in time.
        """
        child = self.start(name, command)
        child.was_ended = True
        wait_until(lambda: not child.is_alive, seconds, f"the end of {name}: {child.log_text()}")
        return child
