"""A client that does nothing but take the bytes of a reply, so that the server is what is timed."""

import hashlib
import re
import socket
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

BUFFER_BYTES = 1 << 20
HEAD_BYTES_MAX = 1 << 16
SILENCE_SECONDS_MAX = 60.0


@dataclass(frozen=True)
class Taken:
    """One whole reply: seconds until the first byte of its body and until the last."""

    length: int
    first_byte_seconds: float
    seconds: float
    digest: str | None


def download(url: str, *, digest: bool = False, range_: str | None = None) -> Taken:
    """Ask for a URL over a new connection and read the reply to its end."""
    parts = urlsplit(url)
    assert parts.hostname is not None, url
    assert parts.port is not None, url
    with socket.create_connection((parts.hostname, parts.port), SILENCE_SECONDS_MAX) as server:
        asked = f"range: {range_}\r\n" if range_ else ""
        head = f"GET {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\n{asked}\r\n"
        began = time.perf_counter()
        server.sendall(head.encode("ascii"))
        length, body = _head(server, url)
        first = time.perf_counter() - began
        found = hashlib.sha256(body) if digest else None
        buffer = bytearray(BUFFER_BYTES)
        view, left = memoryview(buffer), length - len(body)
        while left:
            count = server.recv_into(buffer, min(left, BUFFER_BYTES))
            if not count:
                raise SystemExit(f"{url} ended {left} bytes before its end.")
            left -= count
            if found is not None:
                found.update(view[:count])
        seconds = time.perf_counter() - began
    return Taken(length, first, seconds, found.hexdigest() if found else None)


def _head(server: socket.socket, url: str) -> tuple[int, bytes]:
    """Read up to the first bytes of the body; return its length and these."""
    data = b""
    while b"\r\n\r\n" not in data or data.endswith(b"\r\n\r\n"):
        piece = server.recv(HEAD_BYTES_MAX)
        data += piece
        if not piece or (b"\r\n\r\n" not in data and len(data) > HEAD_BYTES_MAX):
            raise SystemExit(f"{url} sent no body.")
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length: *(\d+)", head)
    if length is None or not head.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 206 ")):
        raise SystemExit(f"{url} answered {head[:200].decode('latin-1')}")
    return int(length[1]), body
