"""Real processes for tests: commands started, watched and ended, on this machine alone."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx

WAIT_SECONDS = 30.0
REFUSED = 2
POLL_SECONDS = 0.02
READY = "tidegate is ready: "


@dataclass(frozen=True)
class Served:
    """A running child process, and where it listens."""

    process: subprocess.Popen[str]
    url: str
    observability_url: str
    errors: Path

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def end(self) -> int:
        """Wait until it has ended; return its exit status."""
        return self.process.wait(timeout=WAIT_SECONDS)


def environment(**extra: str) -> dict[str, str]:
    """Return what a child inherits: all but our own variables, and these."""
    inherited = os.environ
    kept = {name: value for name, value in inherited.items() if not name.startswith("TIDEGATE_")}
    return {**kept, **extra}


def command(*arguments: str) -> list[str]:
    """Return the words that run a command of ours."""
    return [sys.executable, "-m", "tidegate", *arguments]


def run_to_end(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, with `extra` in its environment."""
    return subprocess.run(  # noqa: S603 -- a command of ours
        command(*arguments),
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


def first_line(stream: IO[str] | None) -> str:
    """Return the first line of a pipe."""
    assert stream is not None
    return stream.readline()


@contextmanager
def child(errors: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server; yield it with the first line that it prints. It is gone after the block."""
    with errors.open("w") as sink:
        process = subprocess.Popen(  # noqa: S603 -- a command of ours
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            env=environment(),
            cwd=errors.parent,
        )
        with process:
            try:
                yield process, first_line(process.stdout)
            finally:
                process.kill()


@contextmanager
def simulator(folder: Path, *arguments: str) -> Iterator[str]:
    """Run a model server without a model; yield its base URL."""
    with child(folder / "simulator.log", "simulate", "--port", "0", *arguments) as (_, line):
        yield line.split()[-1].removesuffix("/v1")


@contextmanager
def serving(folder: Path, upstream: str, *arguments: str) -> Iterator[Served]:
    """Run `tidegate serve` on free ports, with its data in a folder of `folder`."""
    ports = ("--port", "0", "--observability-port", "0")
    where = ("--upstream", upstream, "--data-dir", str(folder / "data"))
    errors = folder / "serve.log"
    with child(errors, "serve", *ports, *where, *arguments) as (process, line):
        assert line.startswith(READY), errors.read_text()
        url = line.removeprefix(READY).partition("/v1,")[0]
        operators = line.partition("health and metrics ")[2].split(",")[0].strip()
        yield Served(process, url, operators, errors)


def lines(count: int) -> bytes:
    """Return the input of a batch, with the custom_ids `line-0` and so on."""
    body = {"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    rows = [json.dumps({"custom_id": f"line-{n}", **request}) for n in range(count)]
    return "\n".join(rows).encode()


def create(client: httpx.Client, count: int, *, window: str = "24h") -> str:
    """Upload this many lines and create a batch over them; return its id."""
    file = client.post(
        "/v1/files", data={"purpose": "batch"}, files={"file": ("input.jsonl", lines(count))}
    ).raise_for_status()
    batch = client.post(
        "/v1/batches",
        json={
            "input_file_id": file.json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": window,
        },
    ).raise_for_status()
    return str(batch.json()["id"])


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for a condition, within a bound."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(POLL_SECONDS)


def status_of(client: httpx.Client, batch_id: str) -> str:
    """Return the status of a batch."""
    return str(client.get(f"/v1/batches/{batch_id}").raise_for_status().json()["status"])


def results(client: httpx.Client, batch_id: str) -> list[str]:
    """Return the custom_ids in the output file of a batch, sorted."""
    batch = client.get(f"/v1/batches/{batch_id}").raise_for_status().json()
    output = client.get(f"/v1/files/{batch['output_file_id']}/content").raise_for_status()
    return sorted(json.loads(line)["custom_id"] for line in output.text.splitlines())


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the only line of standard error of a command that was refused."""
    assert done.returncode == REFUSED, done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr
