"""How calls and connections of HTTP/2 end: by either side, early, late or unheard."""

import asyncio

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tidegate.domain.errors import ConnectFailed
from tidegate.testing import http2_frames as frames
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.testing.fuzz.frames import HEAD, Side
from tidegate.testing.hostile_server import Close, HostileServer, ReadSome, Say, Script
from tidegate.testing.http2_frames import data, head
from tidegate.upstreams.base import Call
from tidegate.upstreams.http2.frames import (
    ACK,
    GOAWAY,
    HEAD_BYTES,
    FrameReader,
)
from tidegate.upstreams.http2.upstream import Http2Upstream
from tidegate.upstreams.settings import HttpProtocol, HttpSettings, Limits

OK = (b":status", b"200")
LAST = frames.END_STREAM


def reset_codes(side: Side) -> list[int]:
    """Return the error codes of the calls that we ended."""
    reader = FrameReader()
    reader.feed(bytes(side.wire.sent[len(frames.PREFACE) :]))
    codes = []
    while (frame := reader.next()) is not None:
        if frame.kind == frames.RST_STREAM:
            codes.append(int.from_bytes(frame.whole[HEAD_BYTES:], "big"))
    return codes


@pytest.fixture(autouse=True)
async def running() -> None:
    """Run every test inside a loop."""


async def test_a_farewell_ends_only_calls_that_were_not_taken() -> None:
    side = Side(Limits(), 3)
    farewell = frames.frame(GOAWAY, 0, 0, (3).to_bytes(4, "big") + bytes(4))
    one, two, three = side.hear(
        [head(OK), farewell, data(b"a"), head(OK, stream=3, flags=LAST)], ends=False
    )
    assert one.startswith("Reply(")
    assert two.startswith("Reply(")
    assert three.startswith("NotProcessed: ")
    assert not side.connection.has_room(0.0)
    assert side.wire.is_closing()


async def test_who_hears_a_farewell_may_abandon_other_calls_and_begins_none_there() -> None:
    side = Side(Limits(), 0)
    heard: list[str] = []
    call = Call(path="/v1/x", body=b"")

    class Ear:
        def on_reply(self, result: object) -> None:
            heard.append(type(result).__name__)
            assert not side.connection.has_room(0.0)
            for sending, ear in sendings:
                sending.abandon(ear)

    ears = [Ear() for _ in range(3)]
    sendings = [
        (side.connection.start(HEAD, call, ear, now=0.0, total_due=1e9), ear) for ear in ears
    ]
    side.hear([frames.frame(GOAWAY, 0, 0, bytes(8))], ends=False)
    assert heard == ["NotProcessed"]
    assert side.wire.is_closing()


async def test_a_refused_call_was_not_processed() -> None:
    assert (
        Side(Limits(), 1)
        .hear([frames.reset_frame(1, ErrorCodes.REFUSED_STREAM)])[0]
        .startswith("NotProcessed: ")
    )
    assert (
        "set protocol to http1"
        in Side(Limits(), 1).hear([frames.reset_frame(1, ErrorCodes.HTTP_1_1_REQUIRED)])[0]
    )


async def test_the_other_side_is_told_of_each_call_that_we_end() -> None:
    side = Side(Limits(), 2)
    side.hear([head((b"a", b"b")), head(OK, stream=3), data(b"b", stream=3)], ends=False)
    assert reset_codes(side) == [ErrorCodes.CANCEL]


async def test_what_comes_for_a_call_that_is_over_reaches_no_other() -> None:
    side = Side(Limits(), 2)
    side.hear([head((b"a", b"b"))], ends=False)
    late = head(OK, (b"a", b"late")) + data(b"late")
    _, fine = side.hear([late, head(OK, stream=3), data(b"fine", stream=3)], ends=False)
    assert fine == "Reply(status=200, headers={}, body=b'fine')"


async def test_a_reply_before_the_whole_call_was_taken_is_a_reply() -> None:
    side = Side(Limits(), 0)
    heard: list[object] = []

    class Ear:
        def on_reply(self, result: object) -> None:
            heard.append(result)

    # The call has room of its own left, and all calls together have none.
    side.hear([frames.settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**20})], ends=False)
    call = Call(path="/v1/x", body=b"b" * 100_000)
    side.connection.start(HEAD, call, Ear(), now=0.0, total_due=1e9)
    side.hear([head((b":status", b"413"), flags=LAST)], ends=False)
    assert len(heard) == 1
    assert reset_codes(side) == [ErrorCodes.NO_ERROR]
    before = len(side.wire.sent)
    side.hear([frames.window_frame(0, 2**20)], ends=False)
    assert len(side.wire.sent) == before, "the rest was sent all the same"


async def test_a_call_refused_twice_is_a_fault_of_the_server() -> None:
    said = frames.settings_frame() + frames.frame(GOAWAY, 0, 0, bytes(8))
    async with HostileServer(
        (Say(frames.settings_frame()), ReadSome(), Say(said), Close())
    ) as server:
        upstream = Http2Upstream(HttpSettings(url=server.url, protocol=HttpProtocol.HTTP2))
        async with asyncio.timeout(20):
            await expect_fault(upstream, Call(path="/v1/x", body=b"{}"), ConnectFailed)
        await upstream.aclose()


@pytest.mark.parametrize("piece_bytes", [0, 1])
@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"",
        frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.SETTINGS, ACK, 0),
        frames.frame(frames.SETTINGS, 0, 0, b"abc"),
    ],
)
async def test_who_does_not_begin_with_settings_gets_no_call(said: bytes, piece_bytes: int) -> None:
    # It is told by what it says; only of who says nothing the end has to be awaited.
    script: Script = (ReadSome(), Say(said, piece_bytes))
    if not said:
        script = (ReadSome(), Close())
    async with HostileServer(script) as server:
        upstream = Http2Upstream(HttpSettings(url=server.url, protocol=HttpProtocol.HTTP2))
        async with asyncio.timeout(20):
            fault = await expect_fault(upstream, Call(path="/v1/x", body=b"{}"), ConnectFailed)
        assert "set protocol to http1" in str(fault)
        assert b"/v1/x" not in server.received[0]
        await upstream.aclose()
