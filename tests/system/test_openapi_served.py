"""A real server answers every request as the document of `tidegate openapi` says."""

import json
import re
from pathlib import Path

from testkit.fuzz.openapi import fuzz_api
from testkit.processes import run_to_end, serving, simulator

OPERATIONS = 11


def test_no_random_request_breaks_the_document(tmp_path: Path) -> None:
    with simulator(tmp_path) as upstream, serving(tmp_path, upstream) as served:
        done = fuzz_api(tmp_path, served.url, seed=1, examples=8, seconds_max=100)
    assert done.returncode == 0, done.stdout[-8_000:]
    assert f"Tested: {OPERATIONS}" in done.stdout
    made = re.search(r"(\d+) generated, (\d+) passed", done.stdout)
    assert made is not None
    assert made[1] == made[2]
    assert int(made[1]) > 100
    assert "request_crashed" not in served.errors.read_text()


def test_a_server_that_breaks_its_document_is_found(tmp_path: Path) -> None:
    """The simulator serves models of its own, and no files: the document is not about it."""
    with simulator(tmp_path) as upstream:
        done = fuzz_api(tmp_path, upstream, seed=1, examples=1, seconds_max=100)
    assert done.returncode == 1
    assert "Undocumented" in done.stdout or "schema" in done.stdout


def test_the_document_knows_the_settings() -> None:
    asked = ("openapi", "--set", "batch_api.extra_endpoints=/v1/rerank")
    told = run_to_end(*asked, TIDEGATE_SERVER__KEYS='["one"]')
    found = json.loads(told.stdout)
    assert found["openapi"] == "3.1.0"
    assert found["security"] == [{"key": []}]
    assert "/v1/rerank" in told.stdout
    assert "one" not in re.findall(r'"(\w+)"', told.stdout)
