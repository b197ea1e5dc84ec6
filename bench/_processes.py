"""Real processes for benchmarks: simulated model servers and Tidegate, on free ports."""

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

READY_SECONDS_MAX = 30.0
STOP_SECONDS_MAX = 40.0


def free_port() -> int:
    import socket  # noqa: PLC0415 - only here

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Watched:
    """A child process and the most memory that it was seen to hold."""

    process: subprocess.Popen[bytes]
    rss_mb: list[float] = field(default_factory=list)

    @property
    def rss_mb_max(self) -> float:
        return max(self.rss_mb, default=0.0)

    def cpu_seconds(self) -> float:
        """User and system time so far, in seconds."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def watch(self, stop: threading.Event) -> None:
        while not stop.wait(0.1):
            try:
                status = Path(f"/proc/{self.process.pid}/status").read_text()
            except OSError:
                return
            for line in status.splitlines():
                if line.startswith("VmRSS"):
                    self.rss_mb.append(int(line.split()[1]) / 1024)


@contextmanager
def child(arguments: list[str], health: str, log: Path) -> Iterator[Watched]:
    """Run `tidegate ARGUMENTS` until the block ends."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tidegate", *arguments], stdout=out, stderr=out
        )
    watched, stop = Watched(process), threading.Event()
    watcher = threading.Thread(target=watched.watch, args=(stop,), daemon=True)
    watcher.start()
    try:
        wait_until_healthy(health, process, log)
        yield watched
    finally:
        stop.set()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY_SECONDS_MAX
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"A server did not start:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"A server was not ready in time:\n{log.read_text()}")


@dataclass(frozen=True)
class Servers:
    base_url: str
    tidegate: Watched


@contextmanager
def servers(folder: Path, simulators: dict[str, list[str]], extra: list[str]) -> Iterator[Servers]:
    """Run one simulated model server for each model, and Tidegate before them."""
    from contextlib import ExitStack  # noqa: PLC0415 - only here

    with ExitStack() as stack:
        servers: dict[str, dict[str, str]] = {}
        for model, options in simulators.items():
            port = free_port()
            command = ["simulate", "--port", str(port), "--model", model, *options]
            health = f"http://127.0.0.1:{port}/health"
            stack.enter_context(child(command, health, folder / f"{model}.log"))
            servers[model] = {"url": f"http://127.0.0.1:{port}"}
        config = folder / "tidegate.yaml"
        config.write_text(json.dumps({"upstreams": servers}))
        port, operators = free_port(), free_port()
        command = ["serve", "--config", str(config), "--data-dir", str(folder / "data")]
        command += ["--port", str(port), "--observability-port", str(operators), *extra]
        health = f"http://127.0.0.1:{operators}/ready"
        watched = stack.enter_context(child(command, health, folder / "serve.log"))
        yield Servers(f"http://127.0.0.1:{port}/v1", watched)


def request_line(number: int, model: str, text: str, prefix: str = "line") -> bytes:
    body = {"model": model, "max_tokens": 8, "messages": [{"role": "user", "content": text}]}
    line = {
        "custom_id": f"{prefix}-{number}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": body,
    }
    return json.dumps(line).encode() + b"\n"
