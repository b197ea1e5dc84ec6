"""The benchmark of downloads in its short form."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench" / "download.py"
WAIT_SECONDS = 110.0


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCH), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


@pytest.mark.slow
def test_the_short_form_downloads_from_everybody_who_is_there() -> None:
    done = bench("--quick")
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("RESULT ")
    result = json.loads(last.removeprefix("RESULT "))
    expected = {"tidegate, 1 part", "tidegate, many parts", "tidegate, compacted", "Starlette"}
    if (Path(sys.executable).parent / "go").exists():
        expected |= {"Go net/http"}
    assert set(result["contestants"]) == expected
    for figures in result["contestants"].values():
        assert figures["cpu_ms_per_mb"] > 0
        assert figures["mb_per_second"] > 0
        assert 0 < figures["first_byte_ms"] <= figures["first_byte_ms_max"]
    assert result["first_byte_ms_max"] > 0
    # Every commit of the one is a part of its own; the others are as few as they can be.
    assert list(result["parts"].values()) == [1, 1_200, 1]
    # Loose, for any machine: each slice by itself would cost nine times as much.
    assert 0 < result["ratio_many_parts_to_one"] < 5
    assert result["ratio_to_starlette"] > 0
    assert (result["ratio_to_go"] is not None) == ("Go net/http" in expected)


def test_no_rounds_are_refused() -> None:
    done = bench("--rounds", "0")
    assert done.returncode == 2
    assert "--rounds must be at least 1" in done.stderr
