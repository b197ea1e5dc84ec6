"""Where a reply's body begins and ends.

The head is parsed by llhttp (through httptools), which gets the bytes up to the blank line and no
more: so the size of the head is exact, and bytes after the body are noticed. Bodies are read here,
by the only length that the head allows. Nothing here does I/O.
"""

import re
from collections.abc import Mapping
from typing import Protocol

import httptools

from tidegate.domain.errors import ReplyBroken, ReplyTooLarge
from tidegate.upstreams.settings import Limits

HEAD_END = b"\r\n\r\n"
STATUS_MIN, STATUS_MAX = 100, 599
IDENTITY = frozenset({"", "identity"})
BODYLESS_STATUSES = frozenset({204, 304})
NO_REPLY = "What the upstream sent does not begin as an HTTP/1 reply does."
SIZE_DIGITS_MAX = 16  # Hexadecimal digits of a chunk size, leading zeros included.

# How much earlier than the server we close an idle connection, to allow for the network's delay.
KEEP_ALIVE_MARGIN_SECONDS = 1.0

_KEEP_ALIVE = re.compile(r"(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})(?![0-9])", re.IGNORECASE)
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_VERSION_KEEPING = b"HTTP/1.1 "
_VERSIONS = frozenset({_VERSION_KEEPING, b"HTTP/1.0 "})
_VERSION_BYTES = 9

# Names as servers usually spell them: a look-up is cheaper than decoding and lower-casing.
_COMMON_NAMES = {
    spelling.encode(): name
    for name in [
        "connection",
        "content-length",
        "content-type",
        "date",
        "server",
        "transfer-encoding",
        "x-request-id",
    ]
    for spelling in (name, name.title())
}


class Head:
    """The head of one reply. Header names are lower-case; of repeated ones the last counts.

    Attributes:
        status: the three-digit status.
        headers: the headers.
        keeps_alive: whether the connection may serve another call after this reply.
        codings: how many transfer-encoding headers there were.
        kept_seconds: how long the server keeps the connection open after this reply; None if the
            reply does not say.
    """

    __slots__ = ("codings", "complete", "count", "count_max", "headers", "keeps_alive",
                 "kept_seconds", "status")  # fmt: skip

    def __init__(self, count_max: int) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.keeps_alive = True
        self.kept_seconds: float | None = None
        self.complete = False
        self.codings = 0
        self.count = 0
        self.count_max = count_max

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take one header from the parser."""
        self.count += 1
        if self.count > self.count_max:
            # Raised after the parser returns, because it would wrap an error that is raised here.
            return
        key = _COMMON_NAMES.get(name) or name.decode("latin-1").lower()
        # llhttp removes blanks before a value but not those after it.
        text = value.decode("latin-1").rstrip(" \t")
        # Not asked of the parser, which resets this state at the end of an empty reply.
        if key == "connection" and b"close" in value.lower():
            self.keeps_alive = False
        elif key == "transfer-encoding":
            self.codings += 1
        self.headers[key] = text

    def on_headers_complete(self) -> None:
        """Record that the parser has read the blank line."""
        self.complete = True


class HeadReader:
    """Reads the head of one reply from pieces of any size."""

    __slots__ = ("_head", "_limits", "_parser", "_seen", "_start", "_tail")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._head = Head(limits.header_count_max)
        self._parser = httptools.HttpResponseParser(self._head)
        self._tail = b""
        self._start = b""
        self._seen = 0

    def feed(self, data: bytes) -> tuple[Head, bytes] | None:
        """Take the next bytes; return the head and the bytes after it once it is complete.

        Raises:
            ReplyBroken: what came is not the head of an HTTP/1 reply.
            ReplyTooLarge: the head passes a bound.
        """
        tail = self._tail
        end = (tail + data).find(HEAD_END) if tail else data.find(HEAD_END)
        size = len(data) if end < 0 else end + len(HEAD_END) - len(tail)
        # The bytes within the bound are parsed first, so that the error does not depend on how the
        # bytes were split into pieces.
        within = min(size, self._limits.header_bytes_max - self._seen)
        self._seen += within
        self._parse(data if within == len(data) else data[:within])
        if within < size:
            raise ReplyTooLarge(
                f"The reply's headers are larger than {self._limits.header_bytes_max} bytes "
                "(header_bytes_max)."
            )
        if end < 0:
            self._tail = (tail + data)[-3:]
            return None
        return self._finished(), data[size:]

    def _parse(self, piece: bytes) -> None:
        if len(self._start) < _VERSION_BYTES:
            self._start = start = (self._start + piece[:_VERSION_BYTES])[:_VERSION_BYTES]
            # llhttp accepts blank lines before the status line, and other versions of HTTP.
            if len(start) == _VERSION_BYTES and start not in _VERSIONS:
                raise ReplyBroken(NO_REPLY)
        try:
            self._parser.feed_data(piece)
        except httptools.HttpParserUpgrade as exc:
            self._check_count()
            raise ReplyBroken("The upstream switched to another protocol unasked.") from exc
        except httptools.HttpParserError as exc:
            self._check_count()
            if len(self._start) < _VERSION_BYTES:
                raise ReplyBroken(NO_REPLY) from exc
            raise ReplyBroken(f"The upstream's reply is not well-formed HTTP: {exc}.") from exc
        self._check_count()

    def _check_count(self) -> None:
        count_max = self._limits.header_count_max
        if self._head.count > count_max:
            raise ReplyTooLarge(f"The reply has more than {count_max} headers (header_count_max).")

    def _finished(self) -> Head:
        head = self._head
        if not head.complete:
            raise ReplyBroken("The upstream's reply is not well-formed HTTP: its head has no end.")
        head.status = self._parser.get_status_code()
        if not STATUS_MIN <= head.status <= STATUS_MAX:
            raise ReplyBroken(f"The upstream answered with the impossible status {head.status}.")
        if self._start != _VERSION_KEEPING:
            head.keeps_alive = False
        if "keep-alive" in head.headers:
            _apply_keep_alive(head)
        return head


def _apply_keep_alive(head: Head) -> None:
    """Apply the server's own limit of how long it keeps an idle connection."""
    said = _KEEP_ALIVE.search(head.headers["keep-alive"])
    if said is None:
        return
    # The server's time began when it sent the reply, so it ends before our own.
    head.kept_seconds = int(said[1]) - KEEP_ALIVE_MARGIN_SECONDS
    if head.kept_seconds <= 0:
        head.keeps_alive = False


class BodyReader(Protocol):
    """Reads one body from pieces of any size."""

    done: bool
    ends_at_close: bool

    def feed(self, data: bytes) -> int:
        """Take the next bytes and return how many of them come after the end of the body."""

    def content(self) -> bytes:
        """Return the body."""


def body_for(head: Head, method: str, limits: Limits) -> BodyReader:
    """Return the reader for the only length that the head allows.

    Raises:
        ReplyBroken: the head contradicts itself or names a coding that was not requested.
        ReplyTooLarge: the length that it announces passes the bound.
    """
    headers = head.headers
    if method == "HEAD" or head.status in BODYLESS_STATUSES:
        if "transfer-encoding" in headers or headers.get("content-length", "0") != "0":
            # Some servers send the body all the same; the next call would read it as its reply.
            head.keeps_alive = False
        return SizedBody(0)
    check_coding(headers)
    transfer = headers.get("transfer-encoding")
    if transfer is not None:
        if head.codings > 1 or transfer.strip().lower() != "chunked":
            raise ReplyBroken("The upstream's reply has a transfer-encoding other than chunked.")
        return ChunkedBody(limits)
    length = headers.get("content-length")
    if length is None:
        return OpenBody(limits.body_bytes_max)
    # llhttp has checked that these are digits, given once, below 2**64.
    assert length.isdecimal(), length
    size = int(length)
    if size > limits.body_bytes_max:
        raise body_too_large(limits.body_bytes_max)
    return SizedBody(size)


def check_coding(headers: Mapping[str, str]) -> None:
    """Refuse a body in a coding that was not requested.

    Raises:
        ReplyBroken: it is in one.
    """
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in IDENTITY:
        raise ReplyBroken(
            f"The upstream sent its reply in the coding '{coding[:40]}' although it was asked for "
            "none: switch compression off there."
        )


class SizedBody:
    """A body of `content-length` bytes."""

    __slots__ = ("_bytes", "_size", "_whole", "done", "ends_at_close")

    def __init__(self, size: int) -> None:
        self._size = size
        self._bytes = bytearray()
        self._whole = b""
        self.done = size == 0
        self.ends_at_close = False

    def feed(self, data: bytes) -> int:
        """Take the next bytes and return how many of them come after the end of the body."""
        if len(data) == self._size and not self._bytes:
            # The common case: a small body that comes in one piece is not copied.
            self._whole = data
            self.done = True
            return 0
        missing = self._size - len(self._bytes)
        self._bytes += data[:missing]
        self.done = len(data) >= missing
        return max(0, len(data) - missing)

    def content(self) -> bytes:
        """Return the body."""
        return self._whole or bytes(self._bytes)


class OpenBody:
    """A body without a length: it ends when the connection is closed."""

    __slots__ = ("_bytes", "_bytes_max", "done", "ends_at_close")

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = bytearray()
        self.done = False
        self.ends_at_close = True

    def feed(self, data: bytes) -> int:
        """Take the next bytes; all belong to the body."""
        self._bytes += data
        if len(self._bytes) > self._bytes_max:
            raise body_too_large(self._bytes_max)
        return 0

    def content(self) -> bytes:
        """Return the body."""
        return bytes(self._bytes)


class ChunkedBody:
    """A body in chunks. Extensions and trailers are bounded, checked and dropped."""

    __slots__ = ("_bytes", "_excess", "_limits", "_line", "_missing", "_trailing", "done",
                 "ends_at_close")  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._bytes = bytearray()
        self._line = bytearray()
        self._missing = 0
        self._excess = 0
        self._trailing = False
        self.done = False
        self.ends_at_close = False

    def feed(self, data: bytes) -> int:
        """Take the next bytes and return how many of them come after the end of the body.

        Raises:
            ReplyBroken: the chunks are not well-formed.
            ReplyTooLarge: a bound was passed.
        """
        position = 0
        while position < len(data) and not self.done:
            if self._missing:
                position = self._read_chunk(data, position)
            else:
                position = self._read_line(data, position)
        return len(data) - position

    def content(self) -> bytes:
        """Return the body."""
        return bytes(self._bytes)

    def _read_chunk(self, data: bytes, position: int) -> int:
        """Read the content of the chunk and the line end after it."""
        wanted = self._missing - 2
        if wanted > 0:
            piece = data[position : position + wanted]
            self._bytes += piece
            self._missing -= len(piece)
            return position + len(piece)
        if data[position] != b"\n\r"[self._missing - 1]:
            raise ReplyBroken("A chunk of the upstream's reply is longer than it said.")
        self._missing -= 1
        return position + 1

    def _read_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position)
        piece = data[position:] if end < 0 else data[position : end + 1]
        self._line += piece
        allowed = self._limits.chunk_extension_bytes_max - self._excess
        if len(self._line) > allowed + SIZE_DIGITS_MAX + 2:
            raise self._too_much_framing()
        if end >= 0:
            if not self._line.endswith(b"\r\n"):
                raise ReplyBroken("A line between the chunks of the upstream's reply has no end.")
            line = bytes(self._line[:-2])
            self._line.clear()
            self._take_line(line)
        return position + len(piece)

    def _take_line(self, line: bytes) -> None:
        if self._trailing:
            self._take_trailer(line)
            return
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ReplyBroken("The size of a chunk of the upstream's reply can't be read.")
        size = int(match[1], 16)
        self._add_excess(len(line) - len(b"%x" % size))
        if size == 0:
            self._trailing = True
            return
        if len(self._bytes) + size > self._limits.body_bytes_max:
            raise body_too_large(self._limits.body_bytes_max)
        self._missing = size + 2

    def _take_trailer(self, line: bytes) -> None:
        if not line:
            self.done = True
            return
        if _TRAILER_LINE.fullmatch(line) is None:
            raise ReplyBroken("A trailer of the upstream's reply can't be read.")
        self._add_excess(len(line) + 2)

    def _add_excess(self, count: int) -> None:
        self._excess += count
        if self._excess > self._limits.chunk_extension_bytes_max:
            raise self._too_much_framing()

    def _too_much_framing(self) -> ReplyTooLarge:
        return ReplyTooLarge(
            "The chunk extensions and trailers of the reply are larger than "
            f"{self._limits.chunk_extension_bytes_max} bytes (chunk_extension_bytes_max)."
        )


def body_too_large(bytes_max: int) -> ReplyTooLarge:
    """Return the fault of a body beyond its bound."""
    return ReplyTooLarge(f"The reply's body is larger than {bytes_max} bytes (body_bytes_max).")
