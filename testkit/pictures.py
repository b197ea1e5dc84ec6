"""Record `tidegate run` and `tidegate batches watch` in a terminal, each as an animated SVG.

    .venv/bin/python examples/record.py docs/pictures

The program is the real one, against a real server on this machine; only the model is simulated.
"""

import argparse
import json
import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from testkit.terminal_recording import animated

COLUMNS, ROWS = 96, 30
SECONDS_MAX = 120.0
READ_BYTES = 65_536
STEADY_SECONDS = 0.1
MODEL = ("simulate", "--port", "0", "--token-latency", "0.02", "--latency", "0.1")
TITLE_RUN = "tidegate run prompts.jsonl -o answers.jsonl --upstream http://127.0.0.1:8001"
TITLE_WATCH = "tidegate batches watch $ONE $ANOTHER"
# What a live display sends before it draws itself again: clear this line, and those above it.
REDRAWN = re.compile(r"\r?\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
CURSOR = re.compile(r"\x1b\[\?25[lh]|\x1b\[\?\d+[hl]")


def main() -> int:
    """Record, write, and say where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures are put")
    parser.add_argument("--lines", type=int, default=600, help="lines of the larger batch")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    for scene, play in (("run", run), ("watch", watch)):
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            frames = list(play(Path(name), asked.lines, stack))
        title = {"run": TITLE_RUN, "watch": TITLE_WATCH}[scene]
        path = asked.folder / f"{scene}.svg"
        path.write_text(animated(frames, title=title, columns=COLUMNS))
        print(f"{len(frames)} frames are in {path}")
    return 0


def run(folder: Path, lines: int, stack: ExitStack) -> Iterator[tuple[float, str]]:
    """Run a file without a server; yield what a terminal shows of it."""
    upstream = stack.enter_context(started(folder, *MODEL))
    (folder / "prompts.jsonl").write_text("".join(requests(lines)))
    asked = ("run", "prompts.jsonl", "-o", "answers.jsonl", "--upstream", upstream)
    return seen(command(*asked), folder)


def watch(folder: Path, lines: int, stack: ExitStack) -> Iterator[tuple[float, str]]:
    """Start a server and create two batches; yield what a terminal shows of them."""
    upstream = stack.enter_context(started(folder, *MODEL))
    ports = ("--port", "0", "--observability-port", "0")
    serve = ("serve", *ports, "--upstream", upstream, "--data-dir", str(folder / "data"))
    url = f"{stack.enter_context(started(folder, *serve))}/v1"
    batches: list[str] = []
    for count in (lines, lines // 2):
        path = folder / f"batch-{count}.jsonl"
        path.write_text("".join(requests(count)))
        create = command("batches", "create", str(path), "--base-url", url)
        done = subprocess.run(create, check=True, capture_output=True, text=True)
        batches.append(done.stdout.strip())
    asked = ("batches", "watch", *batches, "--every", "0.25", "--base-url", url)
    return seen(command(*asked), folder)


def requests(count: int) -> Iterator[str]:
    """Yield the lines of a batch."""
    for number in range(count):
        question = {"role": "user", "content": f"Describe number {number}."}
        body = {"model": "sim", "messages": [question], "max_tokens": 32}
        request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
        yield json.dumps({"custom_id": f"line-{number}", **request}) + "\n"


def command(*arguments: str) -> list[str]:
    """Return the words that run a command of ours."""
    return [sys.executable, "-m", "tidegate", *arguments]


@contextmanager
def started(folder: Path, *arguments: str) -> Iterator[str]:
    """Start a server; return the first address that it prints."""
    with (folder / f"{arguments[0]}.log").open("w") as log:
        process = subprocess.Popen(
            command(*arguments), stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder
        )
        with process:
            try:
                assert process.stdout is not None
                found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
                assert found is not None, f"{arguments[0]} did not start"
                yield found[0]
            finally:
                process.terminate()


def seen(words: Sequence[str], folder: Path) -> Iterator[tuple[float, str]]:
    """Run a command in a terminal; yield each state of its screen with its time in seconds."""
    leader, follower = pty.openpty()
    environment = {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
    with subprocess.Popen(
        words,
        stdin=follower,
        stdout=follower,
        stderr=follower,
        env={**os.environ, **environment},
        cwd=folder,
    ) as process:
        os.close(follower)
        begin = time.monotonic()
        text = ""
        while (piece := read(leader)) is not None:
            if time.monotonic() - begin > SECONDS_MAX:
                process.kill()
                raise TimeoutError("The command did not end; record fewer lines.")
            text += piece
            if not piece and (frame := screen(text)):
                yield time.monotonic() - begin, frame
        yield time.monotonic() - begin, screen(text)


def read(leader: int) -> str | None:
    """Return what comes next; nothing if it is steady, None at the end."""
    ready, _, _ = select.select([leader], [], [], STEADY_SECONDS)
    if not ready:
        return ""
    try:
        piece = os.read(leader, READ_BYTES)
    except OSError:  # The other end is closed.
        return None
    return piece.decode("utf-8", "replace") or None


def screen(text: str) -> str:
    """Return what stands on the screen after all this was sent."""
    return CURSOR.sub("", REDRAWN.split(text)[-1]).replace("\r", "").strip("\n")


if __name__ == "__main__":
    sys.exit(main())
