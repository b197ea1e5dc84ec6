"""The benchmark of memory in its short form, and how it sees processes."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"
WAIT_SECONDS = 110.0
MIB = 2**20


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "memory.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


@pytest.mark.slow
def test_the_short_form_tells_what_two_batches_took() -> None:
    done = bench("--quick")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("RESULT ")
    result = json.loads(last.removeprefix("RESULT "))
    assert [batch["lines"] for batch in result["batches"]] == [100, 2_000]
    peaks = [batch["rss_mb_max"] for batch in result["batches"]]
    # An interpreter with all that is imported needs this much anywhere, and must not need more.
    assert 20 < result["rss_mb_ready"] <= min(peaks)
    assert result["rss_mb_max"] == max(peaks) <= 180
    assert abs(result["rss_mb_spread"] - (max(peaks) - min(peaks))) <= 1
    assert result["rss_mb_spread"] <= 60


def test_no_rounds_are_refused() -> None:
    done = bench("--rounds", "0")
    assert done.returncode == 2
    assert "--rounds must be at least 1" in done.stderr


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("memory")


def test_what_a_child_holds_is_seen(memory: ModuleType) -> None:
    code = f"held = b'x' * {64 * MIB}; print(len(held), flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert child.pid in list(memory.descendants(os.getpid()))
        assert 64 < memory.rss_mb(child.pid) < 128
        child.communicate(b"\n")
    assert child.pid not in list(memory.descendants(os.getpid()))
    assert memory.rss_mb(child.pid) == 0.0


def test_the_worst_of_all_rounds_and_batches_is_told(memory: ModuleType, tmp_path: Path) -> None:
    small = memory.Job(tmp_path, 10, 500, 1)
    large = memory.Job(tmp_path, 20, 500, 1)

    def held(most: float, children: float) -> object:
        return memory.Held(ready_mb=70.0, max_mb=most, after_mb=most - 1, children_mb=children)

    result = memory.summary(
        {
            small: [held(80.0, 0.0), held(82.0, 0.0), held(81.0, 0.0)],
            large: [held(100.0, 0.0), held(130.0, 25.0), held(101.0, 0.0)],
        }
    )
    assert result["rss_mb_max"] == 130
    assert result["rss_mb_spread"] == 50
    assert result["rss_mb_spread_of_medians"] == 20
    assert result["children_mb_max"] == 25
    assert [batch["rss_mb"] for batch in result["batches"]] == [81, 101]
    assert result["rounds"] == 3
