"""The benchmark of scale in its short form, and how it sums up what it saw."""

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"
WAIT_SECONDS = 110.0


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH / "scale.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


def result_of(done: subprocess.CompletedProcess[str]) -> dict[str, object]:
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("RESULT ")
    found = json.loads(last.removeprefix("RESULT "))
    assert isinstance(found, dict)
    return found


@pytest.mark.slow
def test_two_processors_are_held_against_one() -> None:
    result = result_of(bench("--quick", "--part", "processors"))
    rows = result["processors"]
    assert isinstance(rows, list)
    assert [row["processors"] for row in rows] == [1, 2]
    assert all(row["lines_per_second"] > 0 for row in rows)
    # So short a run on a busy machine tells little: two must not be far slower than one.
    growth = result["growth_2"]
    assert isinstance(growth, float)
    assert growth > 0.5
    assert "batches" not in result
    assert "large" not in result


@pytest.mark.slow
def test_small_batches_and_a_larger_one_are_told_beside_each_other() -> None:
    small = result_of(bench("--quick", "--part", "batches"))["batches"]
    assert isinstance(small, dict)
    assert small["batches"] == 20
    assert small["cpu_ms_per_batch"] > 0
    assert 0 < small["create_to_completed_ms_p50"] <= small["create_to_completed_ms_p99"]
    result = result_of(bench("--quick", "--part", "large"))
    rows = result["large"]
    assert isinstance(rows, list)
    assert [row["lines"] for row in rows] == [4_000, 1_000, 1_000]
    peaks = [row["rss_mb"] for row in rows]
    assert result["rss_mb_max"] == max(peaks) <= 180
    assert result["rss_mb_spread"] == pytest.approx(max(peaks) - min(peaks), abs=1)
    ratio = result["cost_ratio"]
    assert isinstance(ratio, float)
    assert ratio > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--part", "nothing"], "invalid choice: 'nothing'"),
    ],
)
def test_wrong_arguments_are_refused(arguments: list[str], said: str) -> None:
    done = bench(*arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("scale")


def test_growth_is_that_within_a_round(scale: ModuleType) -> None:
    def fleets(processors: int, *seconds: float) -> list[object]:
        return [scale.Fleet(processors, 100 * processors, each, 0.01) for each in seconds]

    # The machine was slow in the second round, for everybody alike.
    found = {1: fleets(1, 1.0, 2.0, 1.0), 4: fleets(4, 1.0, 2.0, 1.25)}
    summary = scale.processors_summary(found)
    assert summary["growth_4"] == 4.0
    assert summary["processors"][1]["lines"] == 400
    assert summary["processors"][1]["lines_per_second"] == 320


def test_percentiles_are_those_of_the_batches(scale: ModuleType) -> None:
    found = scale.Batches([n / 1_000 for n in range(100, 0, -1)], 2.0, 0.5, 300)
    summary = scale.batches_summary(found)
    assert summary["create_to_completed_ms_p50"] == 50.0
    assert summary["create_to_completed_ms_p99"] == 99.0
    assert summary["batches_per_second"] == 50.0
    assert summary["cpu_ms_per_batch"] == 5.0
    assert summary["looks_per_batch"] == 3.0


def test_a_large_batch_is_held_against_the_mean_of_usual_ones(scale: ModuleType) -> None:
    def one(lines: int, line_us: float, rss_mb: float) -> object:
        return scale.Large(lines, 1.0, 1.0, line_us / 4, line_us * 3 / 4, rss_mb)

    summary = scale.large_summary(
        one(1_000, 36.0, 120.0), [one(50, 20.0, 110.0), one(50, 40.0, 100.0)]
    )
    assert summary["cost_ratio"] == 1.2
    assert summary["rss_mb_max"] == 120
    assert summary["rss_mb_spread"] == 20
