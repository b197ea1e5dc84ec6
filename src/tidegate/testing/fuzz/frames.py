"""What a server says over HTTP/2: each call has one fate, whatever is said, however it is cut."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from h2.settings import SettingCodes
from hpack import HeaderTuple
from hypothesis import strategies as st
from typing_extensions import override

from tidegate.domain.errors import UpstreamFault
from tidegate.testing.fuzz.mutations import CUTS, Edit, cut, edited, edits
from tidegate.testing.fuzz.target import Target
from tidegate.testing.http2_frames import (
    PING,
    PREFACE,
    frame,
    pack,
    settings_frame,
)
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.http2 import frames
from tidegate.upstreams.http2.connection import Http2Connection
from tidegate.upstreams.settings import HttpProtocol, HttpSettings, Limits

LIMITS = Limits(header_bytes_max=512, header_count_max=8, body_bytes_max=256, interim_replies_max=2)
CALL = Call(path="/v1/x", body=b"{}")
HEAD = [HeaderTuple(b":method", b"POST")]
CALLS = 3
FAR = 1e12
# What one connection may hold of all that was said: bodies, headers, a frame, tables.
HELD_BYTES_MAX = CALLS * 1_024 + 2 * frames.PAYLOAD_BYTES_MAX + 64 * 1_024
HEADS = [
    [(b":status", b"200")],
    [(b":status", b"200"), (b"content-length", b"3")],
    [(b":status", b"103"), (b"link", b"x")],
    [(b":status", b"204"), (b"a", b"b" * 600)],
    [(b":status", b"500"), (b"content-encoding", b"gzip")],
    [(b"a", b"b")],
]


def _number(value: int) -> bytes:
    return value.to_bytes(4, "big")


_OURS = st.sampled_from([1, 3, 5])
_HEADERS = st.builds(frame, st.just(frames.HEADERS), st.sampled_from([4, 4, 5]), _OURS,
                     st.sampled_from(HEADS).map(pack))  # fmt: skip
_DATA = st.builds(frame, st.just(frames.DATA), st.sampled_from([0, 1, 1]), _OURS,
                  st.sampled_from([b"", b"abc", b"x" * 200]))  # fmt: skip
_CONTROL = st.one_of(
    st.builds(frame, st.just(frames.RST_STREAM), st.just(0), _OURS,
              st.sampled_from([0, 7, 8, 13]).map(_number)),
    st.builds(frame, st.just(frames.WINDOW_UPDATE), st.just(0), st.sampled_from([0, 1, 3]),
              st.sampled_from([1, 70_000, 2**31 - 1]).map(_number)),
    st.builds(frame, st.just(PING), st.sampled_from([0, 1]), st.just(0), st.just(bytes(8))),
    st.just(settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 1,
                            SettingCodes.MAX_FRAME_SIZE: 20_000})),
    st.builds(frame, st.just(frames.GOAWAY), st.just(0), st.just(0),
              st.sampled_from([1, 3, 2**31 - 1]).map(lambda it: _number(it) + bytes(4))),
)  # fmt: skip
_ODD = st.one_of(
    st.builds(frame, st.integers(0, 11), st.sampled_from([0, 1, 4, 8, 0x20]), st.integers(0, 8),
              st.binary(max_size=20)),
    st.builds(frame, st.just(frames.DATA), st.just(9), _OURS, st.just(b"\x01ab\x00")),
)  # fmt: skip
# Most of it is sound, so that much of it is heard before the rest ends the connection.
_SAID = st.integers(0, 19).flatmap(
    lambda die: _ODD if not die else _CONTROL if die < 5 else _HEADERS if die < 12 else _DATA  # noqa: PLR2004 -- sides of a die
)
TELLING = [b"\xff", b"\x00", b"\x80", b"\x3f\xe1\x1f", b"\x00\x40\x00", PREFACE]


@dataclass(frozen=True, slots=True)
class Talk:
    """What the server says after its settings, in which places it is spoilt, and how it is cut."""

    said: list[bytes]
    changes: list[Edit]
    cuts: list[int]


INPUTS = st.builds(Talk, st.lists(_SAID, max_size=16), st.just([]) | edits(TELLING), CUTS)


def check(talk: Talk) -> None:
    """Hold the fates of some calls to being one each, and the same however the bytes are cut."""
    run_virtual(_check(talk))


async def _check(talk: Talk) -> None:
    data = edited(b"".join(talk.said), talk.changes)
    fates = Side().hear(cut(data, talk.cuts))
    whole = Side().hear([data] if data else [])
    assert fates == whole, f"it depends on how the bytes are cut: {fates} and {whole}"


class Side:
    """A connection with some calls, to a server that says given bytes.

    Attributes:
        wire: what it is written to.
        connection: the connection.
    """

    def __init__(self, limits: Limits = LIMITS, calls: int = CALLS) -> None:
        """Begin the calls, right after the server's settings."""
        settings = HttpSettings(url="http://host", limits=limits, protocol=HttpProtocol.HTTP2)
        self.wire = Wire()
        self.connection = Http2Connection(_Keeper(), settings, asyncio.get_running_loop())
        self.connection.connection_made(self.wire)
        self.connection.data_received(settings_frame())
        self._ears = [_Ear(limits) for _ in range(calls)]
        for ear in self._ears:
            self.connection.start(HEAD, CALL, ear, now=0.0, total_due=FAR)

    def hear(self, pieces: Sequence[bytes], *, ends: bool = True) -> list[str]:
        """Hear these bytes, and then the end; return what became of the calls."""
        for piece in pieces:
            if self.wire.is_closing():
                break
            self.connection.data_received(piece)
            assert self._held() <= HELD_BYTES_MAX, "more is kept than allowed"
        if ends:
            if not self.wire.is_closing():
                self.connection.eof_received()
            self.connection.connection_lost(None)
            assert all(len(ear.heard) == 1 for ear in self._ears), "a call has no fate, or two"
        return [ear.heard[0] if ear.heard else "" for ear in self._ears]

    def _held(self) -> int:
        dialogue = self.connection._dialogue  # noqa: SLF001 -- what is kept is nobody else's
        bodies = sum(len(it._body) for it in dialogue.streams.values())  # noqa: SLF001 -- as above
        buffer = dialogue._protocol.incoming_buffer  # noqa: SLF001 -- as above
        block = sum(len(it.data) for it in buffer._headers_buffer)  # noqa: SLF001 -- as above
        held = len(buffer._data) + len(self.connection._reader._bytes)  # noqa: SLF001 -- as above
        return bodies + block + held


class _Ear:
    """Hears of one call."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.heard: list[str] = []

    def on_reply(self, result: Reply | UpstreamFault) -> None:
        """Take down what became of it."""
        if isinstance(result, Reply):
            assert len(result.body) <= self._limits.body_bytes_max
            assert len(result.headers) <= self._limits.header_count_max
        self.heard.append(
            repr(result) if isinstance(result, Reply) else f"{type(result).__name__}: {result}"
        )


class _Keeper:
    """Wants nothing."""

    def made(self, connection: Http2Connection) -> None:
        """Hear that it is open."""

    def freed(self) -> None:
        """Hear that there is room."""

    def lost(self, connection: Http2Connection) -> None:
        """Hear that it is closed."""


class Wire(asyncio.Transport):
    """A transport that takes everything and goes nowhere.

    Attributes:
        sent: what was written.
        unread: how many bytes wait to be sent, by what it says of itself.
        after_write: called after each write, as a transport calls its protocol that is full by it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._closed = False
        self.sent = bytearray()
        self.unread = 0
        self.after_write: Callable[[], None] = lambda: None

    @override
    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self._closed
        self.sent += data
        self.after_write()

    @override
    def abort(self) -> None:
        self._closed = True

    @override
    def is_closing(self) -> bool:
        return self._closed

    @override
    def get_write_buffer_size(self) -> int:
        return self.unread


TARGET = Target(name="frames", inputs=INPUTS, check=check)
