"""The benchmark of ingest in its short form, and what it feeds the server."""

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
        [sys.executable, str(BENCH / "ingest.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


@pytest.mark.slow
def test_the_short_form_takes_files_in() -> None:
    done = bench("--quick", "--rounds", "2")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("RESULT ")
    result = json.loads(last.removeprefix("RESULT "))
    assert (result["quick"], result["rounds"], result["lines"]) == (True, 2, 400)
    names = {"400 lines of 4 KB", "100 lines of 4 KB"}
    assert set(result["first_request_seconds"]) == set(result["planning_cpu_us_per_line"]) == names
    for name in names:
        assert result["first_request_seconds"][name] > 0
        assert result["planning_cpu_us_per_line"][name] > 0
    # Whoever reads and plans a file does more than who only stores it.
    assert 0 < result["cpu_seconds_copy"] < result["cpu_seconds"]
    assert 0 < result["cpu_seconds_beyond_copy"] < result["cpu_seconds"]
    assert result["mb_per_second"] > 0
    assert result["mb_per_second_copy"] > 0
    assert result["get_ms_p99"] > 0


def test_no_rounds_are_refused() -> None:
    done = bench("--rounds", "0")
    assert done.returncode == 2
    assert "--rounds must be at least 1" in done.stderr


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("_ingest_input")


def test_each_line_has_its_size_and_a_prompt_of_its_own(
    written: ModuleType, tmp_path: Path
) -> None:
    for size in (1_000, 4_000, 16_000):
        given = written.Input(tmp_path, 40, size)
        lines = given.path.read_bytes().splitlines(keepends=True)
        assert [len(line) for line in lines] == [size] * 40
        requests = [json.loads(line) for line in lines]
        assert len({request["custom_id"] for request in requests}) == 40
        assert len({json.dumps(request["body"]) for request in requests}) == 40
        assert given.megabytes == 40 * size / 1e6
