"""Replies of a model server on one connection: each has one fate, and none reaches another call."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass

from hypothesis import strategies as st
from typing_extensions import override

from testkit.fuzz.mutations import CUTS, Edit, cut, edited, edits
from testkit.fuzz.target import Target
from tidegate.domain.errors import UpstreamFault
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.http1.connection import Connection
from tidegate.upstreams.http1.fast_path import FastReplyParser
from tidegate.upstreams.settings import HttpSettings, Limits

LIMITS = Limits(
    header_bytes_max=512,
    header_count_max=8,
    body_bytes_max=256,
    chunk_extension_bytes_max=32,
    interim_replies_max=2,
)
CALL = Call(path="/v1/x", body=b"{}")
HEAD = b"POST /v1/x HTTP/1.1\r\n\r\n"
FAR = 1e12
TELLING = [
    b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"0\r\n\r\n", b":", b" ", b";", b"\x00", b"\xff", b"-1",
    b"transfer-encoding: chunked\r\n", b"content-length: 3\r\n", b"connection: close\r\n",
    b"content-encoding: gzip\r\n", b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.0", b"fffffffffffffffff",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"upgrade: x\r\n", b"a" * 600,
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Said:
    """A well-formed reply, and how it is framed: `sized`, `chunked` or `open` to the close."""

    status: int
    rows: list[tuple[str, str]]
    body: list[bytes]
    framing: str
    interims: int

    def encode(self) -> bytes:
        """Return its bytes."""
        whole = b"".join(self.body)
        rows = [f"{name}: {value}".encode() for name, value in self.rows]
        if self.framing == "sized":
            rows.append(b"content-length: %d" % len(whole))
        elif self.framing == "chunked":
            rows.append(b"transfer-encoding: chunked")
            whole = b"".join(b"%x\r\n%b\r\n" % (len(it), it) for it in self.body if it)
            whole += b"0\r\n\r\n"
        interim = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * self.interims
        return interim + b"\r\n".join([b"HTTP/1.1 %d Said" % self.status, *rows, b"", whole])


SAID = st.builds(
    Said,
    st.sampled_from([200, 201, 302, 400, 404, 429, 500, 503, 599]),
    st.lists(
        st.tuples(
            st.sampled_from(["x-request-id", "a", "retry-after"]), st.text("ab 1", max_size=4)
        ),
        max_size=4,
    ),
    st.lists(st.binary(max_size=20), max_size=4),
    st.sampled_from(["sized", "chunked", "open"]),
    st.integers(0, 2),
)


@dataclass(frozen=True, slots=True)
class Talk:
    """Two replies on one connection, if it lasts: the first may be spoilt."""

    first: Said
    changes: list[Edit]
    cuts: list[int]
    second: Said
    second_cuts: list[int]


INPUTS = st.builds(Talk, SAID, edits(TELLING), CUTS, SAID, CUTS)


def check(talk: Talk) -> None:
    """Hold each reply to what was sent, and the second to the second alone."""
    run_virtual(_check(talk))


async def _check(talk: Talk) -> None:
    data = edited(talk.first.encode(), talk.changes)
    line = _Line()
    fate = line.hear(cut(data, talk.cuts))
    whole = _Line()
    assert whole.hear([data] if data else []) == fate, "it depends on how the bytes are cut"
    if not talk.changes:
        _check_said(talk.first, fate)
    if not line.connection.is_open:
        return
    second = talk.second.encode()
    _check_said(talk.second, line.hear(cut(second, talk.second_cuts)))
    fresh = _Line()
    assert line.last == fresh.hear([second]), "the first reply tinges the second"


def _check_said(said: Said, fate: Reply | str) -> None:
    assert isinstance(fate, Reply), f"refused: {fate}"
    assert (fate.status, fate.body) == (said.status, b"".join(said.body))
    for name, value in dict(said.rows).items():
        assert fate.headers[name] == value.strip()


class _Line:
    """A connection to a server that says given bytes."""

    def __init__(self) -> None:
        settings = HttpSettings(url="http://host", limits=LIMITS)
        self.loop = asyncio.get_running_loop()
        self.wire = _Wire()
        quick = FastReplyParser(settings.limits)
        self.connection = Connection(_Owner(), settings, self.loop, quick)
        self.connection.connection_made(self.wire)
        self.last: Reply | str = "nothing asked"

    def hear(self, pieces: list[bytes]) -> Reply | str:
        """Send a call, receive these bytes and then the end; return the reply or the fault."""
        waiter = _ReplyWaiter()
        self.connection.start(HEAD, CALL, waiter, now=self.loop.time(), total_due=FAR)
        for piece in pieces:
            if waiter.result is not None or not self.connection.is_open:
                break
            self.connection.data_received(piece)
        else:
            if waiter.result is None:
                self.connection.eof_received()
        result = waiter.result
        assert result is not None, "this call never ends"
        self.last = result if isinstance(result, Reply) else f"{type(result).__name__}: {result}"
        return self.last


class _ReplyWaiter:
    """Receives one reply."""

    def __init__(self) -> None:
        self.result: Reply | UpstreamFault | None = None

    def on_reply(self, result: Reply | UpstreamFault) -> None:
        """Keep what came."""
        assert self.result is None, "called twice"
        self.result = result


class _Owner:
    """Wants nothing."""

    def made(self, connection: Connection) -> None:
        """Record that it is open."""

    def released(self, connection: Connection) -> None:
        """Record that it is free; it must be able to take the next call."""
        assert connection.is_open

    def lost(self, connection: Connection) -> None:
        """Record that it is closed."""

    def flush_soon(self, connection: Connection) -> None:
        """Write at once."""
        connection.flush()

    def watch(self, due: float) -> None:
        """Ignore a time limit; none passes here."""


class _Wire(asyncio.Transport):
    """A transport that takes everything and goes nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self._closed = False

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closed

    @override
    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        assert not self._closed

    @override
    def abort(self) -> None:
        self._closed = True

    @override
    def is_closing(self) -> bool:
        return self._closed

    @override
    def get_write_buffer_size(self) -> int:
        return 0


TARGET = Target(name="replies", inputs=INPUTS, check=check)
