"""The model server of the drills, a process of its own: slow by order, and it counts each request.

A request says by members of its body who it is (`user`), how long its answer takes (`delay_ms`,
else the server's own delay) and how many bytes that answer has at least (`reply_bytes`).
"""

import argparse
import asyncio
import json
import re
from collections import Counter
from typing import cast

import httptools
import uvloop

_USER = re.compile(rb'"user":\s*"([^"]*)"')
_DELAY = re.compile(rb'"delay_ms":\s*(\d+)')
_REPLY_BYTES = re.compile(rb'"reply_bytes":\s*(\d+)')
_MODELS = b'{"object":"list","data":[{"id":"m","object":"model","created":0,"owned_by":"drill"}]}'
BACKLOG = 4_096


class Books:
    """What was asked, and how slow the answers are now."""

    def __init__(self, delay_ms: float) -> None:
        self.delay_ms = delay_ms
        self.asked: Counter[str] = Counter()
        self.in_flight = 0
        self.in_flight_peak = 0

    def begin(self, user: str) -> None:
        self.asked[user] += 1
        self.in_flight += 1
        self.in_flight_peak = max(self.in_flight_peak, self.in_flight)

    def counts_of(self, prefix: str) -> bytes:
        """Return the counts of what begins with `prefix`; where all were asked once, by number."""
        mine = [count for user, count in self.asked.items() if user.startswith(prefix)]
        shown = {
            "asked": len(mine),
            "requests": sum(mine),
            "repeated": {
                user: count
                for user, count in self.asked.items()
                if count > 1 and user.startswith(prefix)
            },
            "in_flight": self.in_flight,
            "in_flight_peak": self.in_flight_peak,
        }
        return json.dumps(shown).encode()


class Connection(asyncio.Protocol):
    """One connection; requests on it come one after the other."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._url = b""
        self._body = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's, though they do what these do.
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._books.in_flight -= 1

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            assert self._transport is not None
            self._transport.abort()

    # What the parser calls

    def on_url(self, url: bytes) -> None:
        self._url = url
        self._body.clear()

    def on_body(self, data: bytes) -> None:
        self._body += data

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode().partition("?")
        if path == "/counts":
            self._answer(self._books.counts_of(query))
        elif path == "/delay":
            self._books.delay_ms = float(query)
            self._answer(b"{}")
        elif path == "/v1/models":
            self._answer(_MODELS)
        elif path == "/health":
            self._answer(b"{}")
        else:
            self._think(bytes(self._body))

    def _think(self, body: bytes) -> None:
        found = _USER.search(body)
        user = found[1].decode() if found else ""
        self._books.begin(user)
        delay = _DELAY.search(body)
        seconds = float(delay[1]) / 1_000 if delay else self._books.delay_ms / 1_000
        size = _REPLY_BYTES.search(body)
        reply = answer(user, int(size[1]) if size else 0)
        self._timer = self._loop.call_later(seconds, self._finish, reply)

    def _finish(self, reply: bytes) -> None:
        self._timer = None
        self._books.in_flight -= 1
        self._answer(reply)

    def _answer(self, body: bytes) -> None:
        if self._transport is not None:
            head = (
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            )
            self._transport.write(head % len(body) + body)


def answer(user: str, size: int) -> bytes:
    """Return a chat completion that names who asked."""
    reply = {
        "id": f"chatcmpl-{user}",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": user}, "finish_reason": "stop"}
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }
    body = json.dumps(reply, separators=(",", ":")).encode()
    return body[:-1] + b',"padding":"' + b"x" * (size - len(body)) + b'"}' if size else body


async def serve(delay_ms: float) -> None:
    books = Books(delay_ms)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(books), "127.0.0.1", 0, backlog=BACKLOG)
    print(f"ready http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--delay-ms", type=float, default=20.0)
    uvloop.run(serve(parser.parse_args().delay_ms))


if __name__ == "__main__":
    main()
