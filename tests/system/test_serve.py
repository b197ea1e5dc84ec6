"""`tidegate serve` as a process: started, used, stopped and refused as a person would meet it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import httpx
import pytest

WAIT_SECONDS = 30.0
POLL_SECONDS = 0.02
READY = "tidegate is ready: "


@dataclass(frozen=True)
class Served:
    """A running child process, and where it listens."""

    process: subprocess.Popen[str]
    url: str
    errors: Path

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> int:
        return self.process.wait(timeout=WAIT_SECONDS)


def environment(**extra: str) -> dict[str, str]:
    inherited = os.environ  # noqa: TID251 -- a child inherits all but our own variables
    kept = {name: value for name, value in inherited.items() if not name.startswith("TIDEGATE_")}
    return {**kept, **extra}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tidegate", *arguments]


def run_to_end(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment(**extra),
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_SECONDS,
    )


def first_line(stream: IO[str] | None) -> str:
    assert stream is not None
    return stream.readline()


@contextmanager
def child(errors: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run a server; yield it with the first line that it prints. It is gone after the block."""
    with errors.open("w") as sink:
        process = subprocess.Popen(
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
    with child(folder / "simulator.log", "simulate", "--port", "0", *arguments) as (_, line):
        yield line.split()[-1].removesuffix("/v1")


@contextmanager
def serving(folder: Path, upstream: str, *arguments: str) -> Iterator[Served]:
    ports = ("--port", "0", "--observability-port", "0")
    where = ("--gateway", upstream, "--data-dir", str(folder / "data"))
    errors = folder / "serve.log"
    with child(errors, "serve", *ports, *where, *arguments) as (process, line):
        assert line.startswith(READY), errors.read_text()
        url = line.removeprefix(READY).partition("/v1,")[0]
        yield Served(process, url, errors)


def lines(count: int) -> bytes:
    body = {"model": "sim", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    rows = [json.dumps({"custom_id": f"line-{n}", **request}) for n in range(count)]
    return "\n".join(rows).encode()


def create(client: httpx.Client, count: int) -> str:
    file = client.post(
        "/v1/files", data={"purpose": "batch"}, files={"file": ("input.jsonl", lines(count))}
    ).raise_for_status()
    batch = client.post(
        "/v1/batches",
        json={
            "input_file_id": file.json()["id"],
            "endpoint": "/v1/chat/completions",
            "completion_window": "24h",
        },
    ).raise_for_status()
    return str(batch.json()["id"])


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS  # noqa: TID251 -- another process has no clock of ours
    while not true():
        assert time.monotonic() < deadline, "it took too long"  # noqa: TID251 -- as above
        time.sleep(POLL_SECONDS)


def status_of(client: httpx.Client, batch_id: str) -> str:
    return str(client.get(f"/v1/batches/{batch_id}").raise_for_status().json()["status"])


def results(client: httpx.Client, batch_id: str) -> list[str]:
    batch = client.get(f"/v1/batches/{batch_id}").raise_for_status().json()
    output = client.get(f"/v1/files/{batch['output_file_id']}/content").raise_for_status()
    return sorted(json.loads(line)["custom_id"] for line in output.text.splitlines())


def test_a_batch_runs_and_one_signal_stops_the_process(tmp_path: Path) -> None:
    with simulator(tmp_path) as upstream, serving(tmp_path, upstream) as served:
        with httpx.Client(base_url=served.url) as client:
            assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["sim"]
            batch_id = create(client, 20)
            wait_until(lambda: status_of(client, batch_id) == "completed")
            assert results(client, batch_id) == sorted(f"line-{n}" for n in range(20))
        served.signal(signal.SIGTERM)
        assert served.end() == 0
    log = served.errors.read_text()
    assert "no keys are set" in log
    assert "Traceback" not in log


def test_a_second_signal_cuts_it_short_and_the_next_start_goes_on(tmp_path: Path) -> None:
    with simulator(tmp_path, "--latency", "600") as slow, serving(tmp_path, slow) as served:
        with httpx.Client(base_url=served.url) as client:
            batch_id = create(client, 3)
            wait_until(lambda: status_of(client, batch_id) == "in_progress")
        served.signal(signal.SIGTERM)
        wait_until(lambda: "process_stopping" in served.errors.read_text())
        served.signal(signal.SIGINT)
        assert served.end() == 3
    with (
        simulator(tmp_path) as quick,
        serving(tmp_path, quick) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        wait_until(lambda: status_of(client, batch_id) == "completed")
        assert results(client, batch_id) == ["line-0", "line-1", "line-2"]


def test_with_keys_nobody_else_comes_in(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret-one\nsecret-two blue\n")
    with (
        simulator(tmp_path) as upstream,
        serving(tmp_path, upstream, "--set", f"server.keys_file={keys}") as served,
        httpx.Client(base_url=served.url) as client,
    ):
        assert client.get("/v1/files").status_code == 401
        known = {"authorization": "Bearer secret-one"}
        other = {"authorization": "Bearer secret-two"}
        client.headers.update(known)
        batch_id = create(client, 1)
        assert client.get(f"/v1/batches/{batch_id}").status_code == 200
        assert client.get(f"/v1/batches/{batch_id}", headers=other).status_code == 404
        log = served.errors.read_text()
        assert "no keys are set" not in log
        assert "secret" not in log


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the only line of standard error of a command that was refused."""
    assert done.returncode == 2, done
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        where = ("--gateway", "http://127.0.0.1:1", "--data-dir", str(tmp_path / "data"))
        line = one_line(run_to_end("serve", "--port", port, *where))
    assert f"Port {port} on 127.0.0.1 is in use" in line


def test_a_data_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    where = ("--gateway", "http://127.0.0.1:1", "--data-dir", str(tmp_path / "file" / "data"))
    ports = ("--port", "0", "--observability-port", "0")
    line = one_line(run_to_end("serve", *ports, *where))
    assert "can't be used (Not a directory)" in line


def test_storage_that_does_not_work_ends_it_with_one_clear_line(tmp_path: Path) -> None:
    arguments = ("--port", "0", "--observability-port", "0", "--gateway", "http://127.0.0.1:1")
    for name, expected in (("ledger.db", "is damaged or no SQLite database"), ("blobs", "disk")):
        folder = tmp_path / f"with-bad-{name}"
        folder.mkdir()
        (folder / name).write_bytes(b"not what belongs here" * 100)
        done = run_to_end("serve", *arguments, "--data-dir", str(folder))
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        assert expected in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serve",), "No model server is configured"),
        (("serve", "--gateway", "nonsense"), "must begin with http or https"),
        (("serve", "--gateway", "http://x", "--host", "0.0.0.0"), "--allow-open"),
        (("serve", "--config", "/nonexistent.yaml"), "can't be read"),
        (("serve", "--set", "server.prot=1"), "did you mean 'port'?"),
        (("serve", "--set", "server.port"), "must have the form NAME=VALUE"),
        (("serve", "--port", "1", "--set", "server.port=2"), "given twice"),
        (("config", "check"), "No model server is configured"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in one_line(run_to_end(*arguments, HOME=str(tmp_path)))


def test_config_commands_answer(tmp_path: Path) -> None:
    example = run_to_end("config", "example")
    assert example.returncode == 0
    file = tmp_path / "example.yaml"
    file.write_text(example.stdout)
    assert run_to_end("config", "check", "--config", str(file)).returncode == 0
    shown = run_to_end("config", "show", "--config", str(file), TIDEGATE_SERVER__PORT="9")
    assert "  port: 9  # environment TIDEGATE_SERVER__PORT" in shown.stdout
    assert run_to_end("version").stdout.startswith("tidegate ")
