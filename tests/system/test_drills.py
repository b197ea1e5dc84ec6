"""The short form of the drills on real processes, and the eyes with which they read results."""

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import pytest

BENCH = Path(__file__).parents[2] / "bench"
WAIT_SECONDS = 170.0


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_the_short_drills_lose_nothing_and_double_nothing() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "drills.py"), "--quick"],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )
    last = done.stdout.splitlines()[-1]
    assert last.startswith("RESULT "), done.stderr
    result = json.loads(last.removeprefix("RESULT "))
    assert result["expectations_not_met"] == [], done.stderr
    assert done.returncode == 0
    for name in ("lines_lost", "lines_duplicated", "lines_failed", "acknowledged_lost"):
        assert result[name] == 0, name
    assert result["batches_failed_by_restart"] == 0
    assert result["requests_repeated"] <= result["in_flight_plus_commit_window"]
    assert result["takeover_seconds_p50"] <= result["takeover_seconds_max"]
    assert result["takeover_seconds_max"] <= result["lease_seconds"] + 3
    assert result["small_batch_seconds"] <= 2 * result["small_batch_seconds_alone"] + 2
    assert result["cancel_seconds_max"] <= result["drain_seconds"] + 2
    assert sorted(result["drills"]) == ["a", "b", "c", "d", "e", "f", "g", "h", "x"]
    assert result["ok"]


def test_a_drill_that_does_not_exist_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCH / "drills.py"), "--only", "a,z"],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )
    assert done.returncode == 2
    assert "there is no drill z" in done.stderr


# The reader of results must see what is wrong with them.


@dataclass
class Files:
    """What a user would download, without a server."""

    contents: dict[str, bytes] = field(default_factory=dict)

    def content(self, file_id: str) -> bytes:
        return self.contents[file_id]


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("_drill_client")


def result_line(name: str, *, answer: str | None = None) -> bytes:
    message = {"role": "assistant", "content": answer or name}
    response = {"status_code": 200, "body": {"choices": [{"message": message}]}}
    return json.dumps({"custom_id": name, "response": response, "error": None}).encode() + b"\n"


def error_line(name: str) -> bytes:
    error = {"code": "batch_expired", "message": "Too late."}
    return json.dumps({"custom_id": name, "response": None, "error": error}).encode() + b"\n"


@pytest.mark.parametrize(
    ("output", "errors", "lost", "duplicated", "problem"),
    [
        (result_line("n-0") + result_line("n-1"), error_line("n-2"), 0, 0, None),
        (result_line("n-0"), error_line("n-2"), 1, 0, "counts"),
        (result_line("n-0") + result_line("n-0"), error_line("n-2"), 1, 1, None),
        (result_line("n-0") + result_line("n-1"), error_line("n-1"), 1, 1, None),
        (result_line("n-0") + result_line("n-9"), error_line("n-2"), 1, 0, "nobody asked for"),
        (result_line("n-0") + result_line("n-1", answer="n-0"), error_line("n-2"), 0, 0, "another"),
        ((result_line("n-0") + result_line("n-1"))[:-1], error_line("n-2"), 0, 0, "whole line"),
    ],
)
def test_the_reader_sees_what_is_wrong(
    client: ModuleType,
    output: bytes,
    errors: bytes,
    lost: int,
    duplicated: int,
    problem: str | None,
) -> None:
    files = Files({"out": output, "err": errors})
    batch = client.Batch(
        id="batch_1",
        status="expired",
        total=3,
        completed=2,
        failed=1,
        output_file_id="out",
        error_file_id="err",
        metadata={},
    )
    reading = client.read_results(files, batch, client.named("n", 3))
    assert (reading.lost, reading.duplicated, reading.failed) == (lost, duplicated, 1)
    assert reading.codes["batch_expired"] == 1
    if problem is None:
        assert reading.problems == []
    else:
        assert problem in reading.problems[0]
