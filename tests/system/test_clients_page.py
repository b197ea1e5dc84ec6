"""The Python program in docs/clients.md does its job as it is printed there."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "clients.md"
BASE_URL = "http://127.0.0.1:8000/v1"
FREE = ("--port", "0")


def block(language: str) -> str:
    match = re.search(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert match is not None, language
    return match[1]


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[str]:
    """Start a command and yield the first URL that it says."""
    command = [sys.executable, "-m", "tidegate", *arguments]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            match = re.search(r"http://[^\s,]+", process.stdout.readline())
            assert match is not None
            yield match[0]
        finally:
            process.terminate()


def test_the_python_program_waits_and_writes_the_answers(tmp_path: Path) -> None:
    program = block("python")
    assert BASE_URL in program
    (tmp_path / "batch_input.jsonl").write_text(block("json"))
    with (
        running(tmp_path, "simulate", *FREE, "--model", "smollm2-135m") as model,
        running(tmp_path, "serve", *FREE, "--observability-port", "0", "--upstream", model) as api,
    ):
        (tmp_path / "program.py").write_text(program.replace(BASE_URL, api))
        done = subprocess.run(
            [sys.executable, "program.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("completed")
    assert '"custom_id":"one"' in (tmp_path / "output.jsonl").read_text()
