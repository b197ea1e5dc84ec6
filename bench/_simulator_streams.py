"""Streams by the thousand from a real `tidegate simulate`, counted by a client that only counts."""

import json
import re
import resource
import select
import socket
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from _processes import Watched, child, free_port

FILES_MAX = 65_536
CONNECT_AT_ONCE = 500
WARM_SECONDS = 2.0
GONE_SECONDS_MAX = 10.0


@dataclass
class Client:
    """Non-blocking sockets in this process; it counts events and keeps nothing of them."""

    port: int
    poll: select.epoll = field(default_factory=select.epoll)
    sockets: dict[int, socket.socket] = field(default_factory=dict)
    events: int = 0

    def open(self, count: int, tokens: int) -> None:
        """Open streams of this many tokens each."""
        body = json.dumps(
            {
                "model": "m",
                "stream": True,
                "max_tokens": tokens,
                "ignore_eos": True,
                "messages": [{"role": "user", "content": "hi"}],
            }
        ).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: a\r\ncontent-length: {len(body)}"
        for number in range(count):
            one = socket.create_connection(("127.0.0.1", self.port))
            one.setblocking(False)
            one.send(head.encode() + b"\r\n\r\n" + body)
            self.sockets[one.fileno()] = one
            self.poll.register(one.fileno(), select.EPOLLIN)
            if number % CONNECT_AT_ONCE == CONNECT_AT_ONCE - 1:
                self.pump(0.02)

    def pump(self, seconds: float) -> None:
        """Read all that arrives, for a while."""
        buffer = bytearray(1 << 18)
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            for descriptor, _ in self.poll.poll(0.05, 4_096):
                try:
                    size = self.sockets[descriptor].recv_into(buffer)
                except BlockingIOError:
                    continue
                if not size:
                    self.poll.unregister(descriptor)
                    self.sockets.pop(descriptor).close()
                self.events += buffer.count(b"data: {", 0, size)

    def leave(self) -> None:
        """Close every connection in mid-stream."""
        for one in self.sockets.values():
            one.close()
        self.sockets.clear()


def streamed(folder: Path, streams: int, seconds: float) -> dict[str, float]:
    """Return what this many concurrent streams cost the server."""
    _allow_files()
    flags = ["--max-num-seqs", str(streams + 2_000), "--max-num-batched-tokens", "65536"]
    flags += ["--num-gpu-blocks", str(32 * (streams + 2_000)), "--max-model-len", "4096"]
    with _simulator(folder, [*flags, "--token-latency", "0.1"]) as (port, watched):
        client = Client(port)
        client.open(streams, 4_000)
        client.pump(WARM_SECONDS)
        open_streams = len(client.sockets)
        client.events = 0
        cpu, started = watched.cpu_seconds(), time.perf_counter()
        client.pump(seconds)
        wall, cpu = time.perf_counter() - started, watched.cpu_seconds() - cpu
        client.leave()
    return {
        "streams": open_streams,
        "tokens_per_second": round(client.events / wall),
        "tokens_per_second_per_core": round(client.events / cpu),
        "rss_mb": round(watched.rss_mb_max),
    }


def leaks(folder: Path, clients: int) -> int:
    """Return how many sequences are still there after this many clients left mid-stream."""
    _allow_files()
    flags = ["--max-num-seqs", "400", "--max-num-batched-tokens", "8192", "--token-latency", "0.05"]
    with _simulator(folder, flags) as (port, _):
        client = Client(port)
        client.open(clients, 2_000)
        client.pump(WARM_SECONDS)
        assert _gauge(port, "num_requests_running") > 0
        assert _gauge(port, "num_requests_waiting") > 0
        client.leave()
        end = time.monotonic() + GONE_SECONDS_MAX
        while (left := _left(port)) and time.monotonic() < end:
            time.sleep(0.1)
        assert _gauge(port, "kv_cache_usage_perc") == 0.0 or left
    return left


def _left(port: int) -> int:
    return int(_gauge(port, "num_requests_running") + _gauge(port, "num_requests_waiting"))


def _gauge(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found = re.search(rf"^vllm:{name}{{[^}}]*}} (\S+)$", text, re.MULTILINE)
    assert found is not None, name
    return float(found[1])


@contextmanager
def _simulator(folder: Path, flags: list[str]) -> Iterator[tuple[int, Watched]]:
    port = free_port()
    command = ["simulate", "--port", str(port), "--model", "m", *flags]
    log = folder / f"simulator-{port}.log"
    with child(command, f"http://127.0.0.1:{port}/health", log) as watched:
        yield port, watched


def _allow_files() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(FILES_MAX, most), most))
