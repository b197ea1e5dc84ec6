"""The interpreter is tuned for long-running commands, and `version` reports the hot path."""

import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES

import pytest

from testkit.processes import run_to_end
from tidegate.cli.exit_codes import run_until_stopped
from tidegate.domain import retry
from tidegate.runtime.interpreter import (
    SWITCH_INTERVAL_SECONDS,
    hot_path_state,
    is_compiled,
    set_switch_interval,
)


@pytest.fixture
def restored_interval() -> Iterator[None]:
    before = sys.getswitchinterval()
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("restored_interval")
def test_the_switch_interval_is_set() -> None:
    set_switch_interval()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_SECONDS)


def test_a_long_running_command_sets_the_switch_interval() -> None:
    # In a process of its own, because such a command also freezes its objects for the collector.
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
    assert float(done.stdout) == pytest.approx(SWITCH_INTERVAL_SECONDS)


def test_a_compiled_module_differs_from_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "__file__", f"retry{SOURCE_SUFFIXES[0]}")
    assert not is_compiled()
    assert hot_path_state() == "hot path interpreted"
    monkeypatch.setattr(retry, "__file__", f"retry{EXTENSION_SUFFIXES[0]}")
    assert is_compiled()
    assert hot_path_state() == "hot path compiled"


def test_version_reports_whether_the_hot_path_is_compiled() -> None:
    done = run_to_end("version")
    assert done.stdout.endswith(f"{sys.version.split()[0]}, {hot_path_state()}\n")
