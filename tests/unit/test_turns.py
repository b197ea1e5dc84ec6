"""Threads do not wait long for the interpreter."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tidegate.cli.exit_codes import run_until_stopped
from tidegate.runtime.turns import TURN_SECONDS, take_short_turns


@pytest.fixture
def usual_turns() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("usual_turns")
def test_turns_are_short_once_asked_for() -> None:
    take_short_turns()
    assert sys.getswitchinterval() == pytest.approx(TURN_SECONDS)


def test_a_long_running_command_takes_short_turns() -> None:
    # In a process of its own, as such a command also sets its objects aside for good.
    code = (
        "import sys\n"
        f"from {run_until_stopped.__module__} import run_until_stopped\n"
        "async def look():\n"
        "    print(sys.getswitchinterval())\n"
        "    return False\n"
        "run_until_stopped(look())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) == pytest.approx(TURN_SECONDS)
