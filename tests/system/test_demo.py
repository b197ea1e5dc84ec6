"""The example that everybody runs first: its prompts, its last line, and its end on Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
PROMPTS = ROOT / "examples" / "prompts.jsonl"
COMMAND = [sys.executable, str(ROOT / "examples" / "demo.py"), "--simulated"]
WAIT_SECONDS = 60.0


def environment() -> dict[str, str]:
    inherited = os.environ  # noqa: TID251 -- a child inherits all but our own variables
    return {name: value for name, value in inherited.items() if not name.startswith("TIDEGATE_")}


def result_of(output: str) -> dict[str, object]:
    line = output.rstrip("\n").rpartition("\n")[2]
    assert line.startswith("RESULT ")
    result: dict[str, object] = json.loads(line.removeprefix("RESULT "))
    assert list(result) == ["completed", "failed", "real_model", "seconds"]
    return result


def test_the_prompts_are_many_and_varied() -> None:
    lines = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    assert len(lines) >= 60
    assert len({line["custom_id"] for line in lines}) == len(lines)
    kinds = Counter(line["custom_id"].rpartition("-")[0] for line in lines)
    assert len(kinds) >= 7
    bodies = [line["body"] for line in lines]
    assert {body["model"] for body in bodies} == {"smollm2-135m"}
    assert all(16 <= body["max_tokens"] <= 64 for body in bodies)
    assert len({body["max_tokens"] for body in bodies}) >= 4
    assert any(body["messages"][0]["role"] == "system" for body in bodies)


def test_it_ends_with_a_result_line(tmp_path: Path) -> None:
    done = subprocess.run(
        COMMAND,
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
        env=environment(),
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = result_of(done.stdout)
    assert (result["completed"], result["failed"]) == (67, 0)
    assert result["real_model"] is False
    assert "question-01" in done.stdout


def test_a_batch_that_fails_makes_it_fail(tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    first = json.loads(PROMPTS.read_text().splitlines()[0])
    first["body"]["stream"] = True
    prompts.write_text(f"{json.dumps(first)}\n")
    done = subprocess.run(
        [*COMMAND, "--prompts", str(prompts)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
        env=environment(),
    )
    assert done.returncode == 1
    assert result_of(done.stdout)["completed"] == 0
    assert "line 1: " in done.stdout


def test_an_interrupt_stops_the_servers_and_still_reports_the_result() -> None:
    with subprocess.Popen(COMMAND, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        seen = ""
        while "tidegate   http://" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(WAIT_SECONDS) in {0, 1}
    result_of(seen + rest)
    folder = Path(seen.partition("data in ")[2].partition("\n")[0]).parent
    assert "process_stopped" in (folder / "tidegate.log").read_text()
