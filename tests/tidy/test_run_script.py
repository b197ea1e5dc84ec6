"""The scripts of the repository can be run, and `./run help` lists every command."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMANDS = [
    "setup",
    "check",
    "test",
    "compiled",
    "demo",
    "bench",
    "simulate",
    "parity",
    "docs",
    "fuzz",
    "help",
]


@pytest.mark.parametrize("name", ["run", ".ci/run"])
def test_a_script_is_executable(name: str) -> None:
    assert os.access(ROOT / name, os.X_OK)


def test_help_lists_every_command() -> None:
    done = subprocess.run(
        ["./run", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20
    )
    assert re.findall(r"^  (\w+) ", done.stdout, re.MULTILINE) == COMMANDS


def test_an_unknown_command_is_refused() -> None:
    done = subprocess.run(
        ["./run", "tset"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=20
    )
    assert done.returncode == 2
    assert "There is no command 'tset'." in done.stderr
