"""The tutorial is run block by block as it is printed, on free ports; and the pictures are true."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from testkit.free_ports import free_ports
from testkit.processes import environment

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "tutorial.md"
PICTURES = ROOT / "docs" / "pictures"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SECONDS_MAX = 100


def script(folder: Path) -> str:
    """Return all blocks as one script that ends at the first that fails."""
    blocks = BLOCK.findall(PAGE.read_text())
    assert len(blocks) >= 9
    model, api, operators = free_ports(3)
    text = "\n".join(f"echo '--- {n}'\n{block}" for n, block in enumerate(blocks, 1))
    for printed, free in (("8001", model), ("8000", api)):
        assert f"127.0.0.1:{printed}" in text
        text = re.sub(rf"\b{printed}\b", str(free), text)
    # What the page leaves to defaults: where the server listens, and where commands look for it.
    settings = f"TIDEGATE_SERVER__PORT={api} TIDEGATE_SERVER__OBSERVABILITY_PORT={operators}"
    base_url = f"OPENAI_BASE_URL=http://127.0.0.1:{api}/v1"
    program = folder / "bin" / "tidegate"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m tidegate "$@"\n')
    program.chmod(0o755)
    ending = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT"
    return f"set -eu\n{ending}\nexport {settings} {base_url}\n{text}\necho '--- end'\n"


def test_every_block_of_the_tutorial_does_what_the_page_says(tmp_path: Path) -> None:
    text = script(tmp_path)
    home = tmp_path / "home"
    home.mkdir()
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.defpath}"
    done = subprocess.run(
        ["bash", "-c", text],
        cwd=home,
        env={**environment(), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "--- end" in done.stdout
    assert "completed 5/5 done, 0 failed," in done.stdout
    assert "\n5\n" in done.stdout, "five answers are counted"
    assert "It ended with status 4." in done.stdout
    assert "line 1: Missing required parameter: 'body'." in done.stderr
    assert " 0 failures." in done.stdout
    assert "Traceback" not in said
    answers = (home / "answers.jsonl").read_text()
    assert all(f'"{city}"' in answers for city in ("Paris", "Rome", "Oslo", "Lima", "Cairo"))


@pytest.mark.parametrize("name", ["run", "watch"])
def test_a_picture_shows_the_program_at_work_and_at_its_end(name: str) -> None:
    root = ET.parse(PICTURES / f"{name}.svg").getroot()  # our own file, so it is safe to parse
    text = re.sub(r"\s+", " ", "".join(root.itertext()).replace("\N{NO-BREAK SPACE}", " "))
    expected = {
        "run": ("tidegate run", "in flight", "lines/s", "left", "600 of 600 lines completed"),
        "watch": ("tidegate batches watch", "in_progress", "completed", "600/600", "/s"),
    }
    for words in expected[name]:
        assert words in text, (
            f"{name}.svg lacks '{words}': make it again by python -m testkit.pictures"
        )


def test_the_pictures_can_be_made_again(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "testkit.pictures", str(tmp_path), "--lines", "20"],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS_MAX,
    )
    assert done.returncode == 0, done.stderr
    assert "20 of 20 lines completed" in plain(tmp_path / "run.svg")
    assert "20/20" in plain(tmp_path / "watch.svg")


def plain(path: Path) -> str:
    root = ET.parse(path).getroot()
    return "".join(root.itertext()).replace("\N{NO-BREAK SPACE}", " ")
