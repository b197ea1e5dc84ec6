"""A model server in a thread of the benchmark that notes when the first request came.

It shares the benchmark's clock, so that a time from here and one from there may be compared.
Answers take a while, so that what is sent in the meantime costs nearly nothing.
"""

import json
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path

from typing_extensions import override

ANSWER_SECONDS = 0.05
WAIT_SECONDS_MAX = 120.0
_MODELS = {"object": "list", "data": [{"id": "m", "object": "model"}]}
_USAGE = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
_MESSAGE = {"role": "assistant", "content": "Yes."}
_COMPLETION = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1_790_000_000,
    "model": "m",
    "choices": [{"index": 0, "message": _MESSAGE, "finish_reason": "stop"}],
    "usage": _USAGE,
}


@dataclass(frozen=True)
class FirstRequest:
    """A running server, as `serving` wants to know one."""

    url: str
    certificate: Path | None
    _noted: "_Noted"

    def forget(self) -> None:
        """Start waiting for a first request again."""
        self._noted.came.clear()

    def came_at(self) -> float:
        """Return when it came, by `time.monotonic`, as soon as it has."""
        if not self._noted.came.wait(WAIT_SECONDS_MAX):
            raise SystemExit(f"No request reached the model server in {WAIT_SECONDS_MAX:g} s.")
        return self._noted.at


class _Noted:
    def __init__(self) -> None:
        self.came = threading.Event()
        self.at = 0.0

    def note(self) -> None:
        if not self.came.is_set():
            self.at = time.monotonic()
            self.came.set()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, noted: _Noted) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.noted = noted


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        self._answer(_MODELS)

    def do_POST(self) -> None:
        self.server.noted.note()
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(ANSWER_SECONDS)
        self._answer(_COMPLETION)

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    @override
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def first_request() -> Iterator[FirstRequest]:
    """Serve until the block ends."""
    noted = _Noted()
    with _Server(noted) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            host, port = server.server_address[:2]
            yield FirstRequest(f"http://{host!s}:{port}", None, noted)
        finally:
            server.shutdown()
            thread.join()
