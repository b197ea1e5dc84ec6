"""The bytes of replies: heads, whole replies, and the frames of streams."""

from functools import cache
from http import HTTPStatus

JSON = b"application/json"
TEXT = b"text/plain; version=0.0.4; charset=utf-8"
LAST_FRAME = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_EVENTS = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
    b"transfer-encoding: chunked\r\n"
)
_OLD_EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_CLOSE = b"connection: close\r\n"


@cache
def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {_PHRASES.get(status, 'Unknown')}\r\n".encode("ascii")


def whole(
    status: int, body: bytes, *, kind: bytes = JSON, headers: bytes = b"", closes: bool = False
) -> bytes:
    """Return a reply of known length. `headers` are rows, each with its line end."""
    return b"%b%bcontent-length: %d\r\n%b%b\r\n%b" % (
        _status_line(status),
        b"content-type: %b\r\n" % kind if body else b"",
        len(body),
        headers,
        _CLOSE if closes else b"",
        body,
    )


def stream_head(headers: bytes, *, closes: bool, is_framed: bool) -> bytes:
    """Return the head of a stream of events; without frames it ends with the connection."""
    return b"%b%b%b\r\n" % (
        _EVENTS if is_framed else _OLD_EVENTS,
        headers,
        _CLOSE if closes or not is_framed else b"",
    )


def frame(data: bytes) -> bytes:
    """Return bytes of a stream as one frame of it."""
    return b"%x\r\n%b\r\n" % (len(data), data)
