"""`tidegate validate` and the flags of `tidegate run`, as a shell sees them."""

import json
from pathlib import Path

import pytest

from testkit.processes import one_line, run_to_end
from testkit.servers.counting import request

NOWHERE = ("--upstream", "http://127.0.0.1:9")


def test_a_valid_file_ends_with_status_0(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(request("a") + "\n" + request("b") + "\n")
    done = run_to_end("validate", str(source))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("2 lines for /v1/chat/completions: valid\n")
    assert "models             m (2)" in done.stdout


def test_problems_come_with_their_lines_and_status_1(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(request("a") + "\n{}\n" + request("a") + "\n")
    done = run_to_end("validate", str(source))
    assert done.returncode == 1
    first, second, *_ = done.stdout.splitlines()
    assert first.startswith(f"{source}:2: Missing required parameter: 'custom_id'.")
    assert second.startswith(f"{source}:3: The custom_id for this request is a duplicate")
    done = run_to_end("validate", str(source), "--json")
    *problems, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert [problem["line"] for problem in problems] == [2, 3]
    assert (summary["valid"], summary["lines"], summary["problems"]) == (False, 3, 2)


def test_the_limits_are_those_of_the_settings(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text(request("a") + "\n" + request("b") + "\n")
    done = run_to_end("validate", str(source), "--set", "processor.planning.lines_max=1")
    assert done.returncode == 1
    assert "(too_many_tasks)" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("validate", "no.jsonl"), "There is no file no.jsonl"),
        (("validate", "x", "--endpoint", "y"), "--endpoint 'y' is not known"),
        (("run", "x", "-o", "y"), "No model server is named"),
        (("run", "no.jsonl", "-o", "y", *NOWHERE), "There is no file no.jsonl"),
        (("run", "x", "-o", "y", *NOWHERE, "--endpoint", "y"), "--endpoint 'y' is not known"),
        (("run", "x", "-o", "y", *NOWHERE, "--param", "a"), "must have the form KEY=JSON"),
        (("run", "x", "-o", "y", *NOWHERE, "--system", "a"), "are for rows"),
        (("run", "x.csv", "-o", "y", *NOWHERE), "x.csv is not a batch file"),
        (
            ("run", "x.csv", "-o", "y", *NOWHERE, "--column", "a", "--param", "a=1", "--param=a=2"),
            "--param a is given twice",
        ),
        (("run", "x", "-o", "no/y", *NOWHERE), "There is no folder no"),
        (("run", "x", "-o", "y", "--upstream", "ftp://x"), "must begin with http"),
    ],
)
def test_a_mistake_is_one_line_that_says_how_to_fix_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert said in one_line(run_to_end(*words))
    assert list(tmp_path.iterdir()) == []


def test_a_refused_input_is_reported_in_json_as_well(tmp_path: Path) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes((request("a") + "\n").encode("utf-16"))
    words = ("run", str(source), "-o", str(target), *NOWHERE, "--json", "--no-check")
    done = run_to_end(*words)
    assert done.returncode == 2
    told = json.loads(done.stdout)
    assert (told["status"], told["total"], told["output"]) == ("invalid", 0, None)
    [problem] = told["problems"]
    assert (problem["line"], "UTF-16" in problem["message"]) == (None, True)
    assert problem["message"] in done.stderr
