"""A closed loop of requests over a few connections, in one thread that does little else."""

import gc
import math
import re
import selectors
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

SILENCE_SECONDS_MAX = 30.0
READ_BYTES = 1 << 18
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")


@dataclass(frozen=True)
class Measured:
    """The latency of every request in milliseconds, and what the client itself spent."""

    latencies_ms: Sequence[float]
    seconds: float
    client_cpu_us: float

    @property
    def requests(self) -> int:
        return len(self.latencies_ms)

    def percentile(self, share: float) -> float:
        """Return the latency that this share of requests did not pass; 0 of none at all."""
        ordered = sorted(self.latencies_ms)
        return ordered[math.ceil(share * len(ordered)) - 1] if ordered else 0.0


@dataclass
class _Line:
    """One connection: what it sends again and again, and the reply as far as it came."""

    server: socket.socket
    request: bytes
    sent_at: float = 0.0
    due_at: float = 0.0
    waiting: bool = False
    reply: bytearray = field(default_factory=bytearray)

    def ask(self) -> None:
        self.reply.clear()
        self.waiting = True
        self.sent_at = time.perf_counter()
        self.server.sendall(self.request)

    def rest(self, seconds: float) -> float:
        """Be due again after this time; return the milliseconds that the reply took."""
        now = time.perf_counter()
        self.waiting, self.due_at = False, now + seconds
        return 1_000 * (now - self.sent_at)

    def hear(self) -> bytes | None:
        """Read what there is; return the body of a reply that is whole."""
        piece = self.server.recv(READ_BYTES)
        if not piece:
            raise SystemExit("The server closed a connection that asks again and again.")
        self.reply += piece
        end = self.reply.find(b"\r\n\r\n")
        if end < 0:
            return None
        length = _LENGTH.search(self.reply, 0, end)
        if length is None or not self.reply.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"The server answered {bytes(self.reply[:200])!r}.")
        if len(self.reply) < end + 4 + int(length[1]):
            return None
        return bytes(self.reply[end + 4 :])


def ask_again_and_again(
    url: str,
    *,
    connections: int,
    pause_seconds: float,
    seconds_max: float,
    go_on: Callable[[bytes], bool] = lambda _: True,
) -> Measured:
    """Send the next request of a connection `pause_seconds` after its last reply.

    It ends at `seconds_max`, or with the first reply that `go_on` is false of: that one does not
    count.
    """
    parts = urlsplit(url)
    query = f"?{parts.query}" if parts.query else ""
    request = f"GET {parts.path}{query} HTTP/1.1\r\nhost: {parts.netloc}\r\n\r\n".encode()
    address = (str(parts.hostname), int(parts.port or 80))
    lines = [
        _Line(socket.create_connection(address, SILENCE_SECONDS_MAX), request)
        for _ in range(connections)
    ]
    gc.disable()
    try:
        return _loop(lines, pause_seconds, seconds_max, go_on)
    finally:
        gc.enable()
        for line in lines:
            line.server.close()


def _loop(
    lines: Sequence[_Line], pause_seconds: float, seconds_max: float, go_on: Callable[[bytes], bool]
) -> Measured:
    latencies: list[float] = []
    began, cpu = time.perf_counter(), time.process_time()
    with selectors.DefaultSelector() as selector:
        for number, line in enumerate(lines):
            selector.register(line.server, selectors.EVENT_READ, line)
            # Spread over the first pause, as users are.
            line.due_at = began + pause_seconds * number / len(lines)
        going = True
        end = began + seconds_max
        while going and (now := time.perf_counter()) < end:
            for line in lines:
                if not line.waiting and line.due_at <= now:
                    line.ask()
            ready: list[_Line] = [key.data for key, _ in selector.select(_patience(lines, end))]
            for line in ready:
                body = line.hear()
                if body is not None:
                    latencies.append(line.rest(pause_seconds))
                    going = going and go_on(body)
    if not going:
        latencies.pop()
    spent = 1e6 * (time.process_time() - cpu)
    return Measured(latencies, time.perf_counter() - began, spent)


def _patience(lines: Sequence[_Line], end: float) -> float:
    """How long nothing may come before the next request is due, or the end."""
    due = [line.due_at for line in lines if not line.waiting]
    return max(0.0, min([*due, end]) - time.perf_counter())
