"""Servers that say over HTTP/2 what they should not: one call ends, or the connection."""

import pytest
from h2.settings import SettingCodes

from tidegate.testing import http2_frames as frames
from tidegate.testing.fuzz.frames import Side
from tidegate.testing.http2_frames import data, head
from tidegate.upstreams.http2.client import WINDOW_MAX, WINDOW_START
from tidegate.upstreams.http2.connection import UNREAD_BYTES_MAX
from tidegate.upstreams.http2.dialogue import CHATTER_MAX
from tidegate.upstreams.http2.frames import (
    ACK,
    CONTINUATION,
    END_HEADERS,
    GOAWAY,
    HEAD_BYTES,
    PAYLOAD_BYTES_MAX,
)
from tidegate.upstreams.settings import Limits

OK = (b":status", b"200")
LAST = frames.END_STREAM


def fate(*said: bytes, limits: Limits | None = None) -> str:
    side = Side(limits or Limits(), 1)
    return side.hear(said)[0]


@pytest.fixture(autouse=True)
async def running() -> None:
    """Run every test inside a loop."""


async def test_a_sound_reply_in_every_form() -> None:
    plain = "Reply(status=200, headers={}, body=b'abc')"
    assert fate(head(OK), data(b"abc")) == plain
    assert fate(head((b":status", b"103")), head(OK), data(b"ab", flags=0), data(b"c")) == plain
    assert fate(head(OK), data(b"abc", flags=0), head((b"x-end", b"1"), flags=LAST)) == plain
    assert fate(head(OK), data(b"abc", flags=0), data(b"")) == plain
    padded = frames.frame(frames.DATA, LAST | frames.PADDED, 1, b"\x02abc\x00\x00")
    assert fate(head(OK), padded) == plain
    prioritized = frames.frame(
        frames.HEADERS, END_HEADERS | frames.PRIORITIZED, 1, bytes(5) + frames.pack([OK])
    )
    assert fate(prioritized, data(b"abc")) == plain
    split = frames.pack([OK])
    assert (
        fate(
            frames.frame(frames.HEADERS, 0, 1, split[:1]),
            frames.frame(CONTINUATION, END_HEADERS, 1, split[1:]),
            data(b"abc"),
        )
        == plain
    )
    unknown = frames.frame(99, 0xFF, 7, b"x")
    assert fate(unknown, head(OK), unknown, data(b"abc")) == plain


BROKEN_CALLS = {
    "no status": ([head((b"a", b"b"), flags=LAST)], "does not begin with a status"),
    "a status that is none": ([head((b":status", b"2000"))], "does not begin with a status"),
    "a status beyond": ([head((b":status", b"600"))], "does not begin with a status"),
    "a second status": ([head(OK, OK)], "header of the upstream's reply can't be read"),
    "capitals": ([head(OK, (b"X-A", b"b"))], "can't be read"),
    "a line break": ([head(OK, (b"a", b"b\r\nc"))], "can't be read"),
    "what belongs to HTTP/1": ([head(OK, (b"connection", b"close"))], "which HTTP/2 forbids"),
    "a coding": ([head(OK, (b"content-encoding", b"gzip"))], "switch compression off"),
    "too little": ([head(OK, (b"content-length", b"2"), flags=LAST)], "shorter than it said"),
    "a body of nothing": ([head((b":status", b"204")), data(b"a")], "longer than it said"),
    "broken off": ([head(OK), frames.reset_frame(1, 2)], "HTTP/2 error 2"),
    "a window too wide": ([frames.window_frame(1, WINDOW_MAX)], "window can't be"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_CALLS)
async def test_what_is_wrong_with_one_reply_ends_that_call_alone(name: str) -> None:
    said, word = BROKEN_CALLS[name]
    side = Side(Limits(), 2)
    other = head(OK, stream=3) + data(b"fine", stream=3)
    broken, fine = side.hear([*said, other])
    assert broken.startswith("ReplyBroken: ")
    assert word in broken
    assert fine == "Reply(status=200, headers={}, body=b'fine')"


BROKEN_CONNECTIONS = {
    "two lengths": head(OK, *[(b"content-length", b"%d" % it) for it in (1, 2)]),
    "a length that is none": head(OK, (b"content-length", b"+1")),
    "more than it said": head(OK, (b"content-length", b"1")) + data(b"ab"),
    "less than it said": head(OK, (b"content-length", b"2")) + data(b"a"),
    "a body before its head": data(b"a"),
    "an end before its begin": head((b":status", b"100"), flags=LAST),
    "headers in the middle": head(OK) + head((b"a", b"b")),
    "a window of nothing for a call": frames.window_frame(1, 0),
    "a frame too large": frames.frame(0, 0, 1, bytes(PAYLOAD_BYTES_MAX + 1)),
    "padding beyond its frame": frames.frame(frames.DATA, frames.PADDED, 1, b"\x04abc"),
    "padding without a length": frames.frame(frames.DATA, frames.PADDED, 1, b""),
    "a call never made": head(OK, stream=5),
    "a call of the server's": head(OK, stream=2),
    "data of no call": data(b"a", stream=0),
    "a push": frames.frame(frames.PUSH_PROMISE, END_HEADERS, 1, bytes(4)),
    "more of nothing": frames.frame(CONTINUATION, 0, 1, b""),
    "something amid headers": frames.frame(frames.HEADERS, 0, 1, b"") + data(b"a"),
    "a farewell amid headers": frames.frame(frames.HEADERS, 0, 1, b"")
    + frames.frame(GOAWAY, 0, 0, bytes(8)),
    "another's headers amid headers": frames.frame(frames.HEADERS, 0, 1, b"")
    + frames.frame(CONTINUATION, END_HEADERS, 3, b""),
    "headers in no known form": frames.frame(frames.HEADERS, END_HEADERS, 1, b"\x80"),
    "a number in headers without an end": frames.frame(frames.HEADERS, END_HEADERS, 1, b"\xff"),
    "a short reset": frames.frame(frames.RST_STREAM, 0, 1, b"abc"),
    "a short ping": frames.frame(frames.PING, 0, 0, b"abc"),
    "a ping for a call": frames.frame(frames.PING, 0, 1, bytes(8)),
    "short settings": frames.frame(frames.SETTINGS, 0, 0, b"abc"),
    "settings for a call": frames.frame(frames.SETTINGS, 0, 1),
    "settings that agree and differ": frames.frame(frames.SETTINGS, ACK, 0, bytes(6)),
    "a window of settings": frames.settings_frame({SettingCodes.INITIAL_WINDOW_SIZE: 2**31}),
    "frames too small": frames.settings_frame({SettingCodes.MAX_FRAME_SIZE: PAYLOAD_BYTES_MAX - 1}),
    "frames too large": frames.settings_frame({SettingCodes.MAX_FRAME_SIZE: 2**24}),
    "a window of nothing": frames.window_frame(0, 0),
    "a window too wide": frames.window_frame(0, WINDOW_MAX),
    "a short window": frames.frame(frames.WINDOW_UPDATE, 0, 0, b"a"),
    "a short farewell": frames.frame(GOAWAY, 0, 0, b"abc"),
    "a farewell for a call": frames.frame(GOAWAY, 0, 1, bytes(8)),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN_CONNECTIONS)
async def test_what_breaks_the_rules_ends_every_call_and_the_connection(name: str) -> None:
    side = Side(Limits(), 2)
    fates = side.hear([BROKEN_CONNECTIONS[name]], ends=False)
    assert all("broke the rules of HTTP/2" in it for it in fates), fates
    assert "0x" not in fates[0], "it tells where something lies in memory"
    assert side.wire.is_closing()


# Bounds


async def test_the_body_is_bounded() -> None:
    limits = Limits(body_bytes_max=64)
    assert "body=b'bbb" in fate(head(OK), data(b"b" * 32, flags=0), data(b"b" * 32), limits=limits)
    for said in (
        [head(OK), data(b"b" * 65)],
        [head(OK), data(b"b" * 32, flags=0), data(b"b" * 33)],
        [head(OK, (b"content-length", b"65"))],
    ):
        assert fate(*said, limits=limits).startswith("ReplyTooLarge: "), said


async def test_headers_are_bounded_in_bytes_and_in_number() -> None:
    limits = Limits(header_bytes_max=64, header_count_max=2)
    room = 64 - len(":status") - 3 - 4 - len("a") - 4
    assert fate(head(OK, (b"a", b"v" * room), flags=LAST), limits=limits).startswith("Reply(")
    large = fate(head(OK, (b"a", b"v" * (room + 1)), flags=LAST), limits=limits)
    assert "header_bytes_max" in large
    two, three = [(b"a", b"")] * 2, [(b"a", b"")] * 3
    assert fate(head(OK, *two, flags=LAST), limits=limits).startswith("Reply(")
    assert "header_count_max" in fate(head(OK, *three, flags=LAST), limits=limits)


async def test_headers_that_are_too_large_end_their_call_alone() -> None:
    side = Side(Limits(header_bytes_max=64), 2)
    large, fine = side.hear([head(OK, (b"a", b"v" * 1000)), head(OK, stream=3, flags=LAST)])
    assert "header_bytes_max" in large
    assert fine.startswith("Reply(")


async def test_a_small_block_can_not_stand_for_much() -> None:
    side = Side(Limits(), 2)
    value = b"v" * 4000
    remembered = frames.pack([OK]) + b"\x40\x01a\x7f\xa1\x1e" + value
    side.hear([frames.frame(frames.HEADERS, END_HEADERS | LAST, 1, remembered)], ends=False)
    # Ten thousand times the same entry would be 40 MB: not unpacked, and so none can be any more.
    bomb = frames.frame(frames.HEADERS, END_HEADERS, 3, frames.pack([OK]) + b"\xbe" * 10_000)
    assert "header_bytes_max" in side.hear([bomb], ends=False)[1]
    assert side.wire.is_closing()


async def test_what_can_not_be_skipped_is_the_fault_of_one_call_and_ends_all() -> None:
    limits = Limits(header_bytes_max=64, header_count_max=2)
    unpacked_max = 64 + 32 * 3
    room = unpacked_max - len(":status200") - 32 - len("a") - 32
    for size, fine in ((room, "Reply("), (room + 1, "ReplyBroken: ")):
        side = Side(limits, 2)
        large, other = side.hear([head(OK, (b"a", b"v" * size)), head(OK, stream=3, flags=LAST)])
        assert "header_bytes_max" in large
        assert other.startswith(fine)


async def test_headers_without_an_end_are_bounded() -> None:
    limits = Limits(header_bytes_max=1024)
    begin = frames.frame(frames.HEADERS, 0, 1, b"")
    more = frames.frame(CONTINUATION, 0, 1, bytes(1024 - HEAD_BYTES))
    allowed = (1024 + PAYLOAD_BYTES_MAX - HEAD_BYTES) // 1024
    side = Side(limits, 2)
    assert side.hear([begin, *[more] * allowed], ends=False) == ["", ""]
    large, other = side.hear([more], ends=False)
    assert "header_bytes_max" in large
    assert "too large to be skipped" in other
    assert side.wire.is_closing()


async def test_the_bound_of_headers_is_that_of_each_block() -> None:
    limits = Limits(header_bytes_max=1024, interim_replies_max=100)
    early = head((b":status", b"103"), (b"a", b"v" * 900))
    blocks = (1024 + PAYLOAD_BYTES_MAX) // len(early) + 1
    assert fate(*[early] * blocks, head(OK, flags=LAST), limits=limits).startswith("Reply(")


async def test_interim_replies_are_bounded() -> None:
    limits = Limits(interim_replies_max=2)
    early = head((b":status", b"103"))
    assert fate(early, early, head(OK, flags=LAST), limits=limits).startswith("Reply(")
    assert "interim_replies_max" in fate(early, early, early, limits=limits)


@pytest.mark.parametrize(
    "frame",
    [
        frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.settings_frame(),
        frames.window_frame(0, 1),
        frames.frame(frames.DATA, 0, 1, b""),
        frames.frame(frames.PRIORITY, 0, 1, bytes(5)),
        frames.frame(77, 0, 0, b""),
    ],
)
async def test_frames_that_say_nothing_are_bounded(frame: bytes) -> None:
    side = Side(Limits(), 1)
    # The settings at the begin were the first.
    assert side.hear([head(OK), frame * (CHATTER_MAX - 1)], ends=False) == [""]
    assert "that say nothing" in side.hear([frame], ends=False)[0]


async def test_frames_that_say_nothing_are_counted_from_one_reply_to_the_next() -> None:
    side = Side(Limits(), 2)
    ping = frames.frame(frames.PING, 0, 0, bytes(8))
    said = [ping * (CHATTER_MAX - 1), head(OK, flags=LAST), ping * CHATTER_MAX]
    assert side.hear(said, ends=False)[1] == ""
    assert "that say nothing" in side.hear([ping], ends=False)[1]


async def test_questions_are_answered_only_to_who_reads_the_answers() -> None:
    side = Side(Limits(), 1)
    ping = frames.frame(frames.PING, 0, 0, b"12345678")
    side.wire.unread = UNREAD_BYTES_MAX
    assert side.hear([ping], ends=False) == [""]
    assert side.wire.sent.endswith(frames.frame(frames.PING, ACK, 0, b"12345678"))
    side.wire.unread = UNREAD_BYTES_MAX + 1
    assert "asks more" in side.hear([ping], ends=False)[0]


async def test_what_was_read_is_reported_before_the_window_is_full() -> None:
    # Padding is no body and says nothing, and yet it fills windows: here twice.
    limits = Limits(body_bytes_max=64)
    padding = frames.frame(frames.DATA, frames.PADDED, 1, b"\xff" + bytes(255))
    count = 2 * (WINDOW_START + 2 * 64) // 256
    said = fate(head(OK), padding * count, data(b"fine"), limits=limits)
    assert said == "Reply(status=200, headers={}, body=b'fine')"


async def test_settings_that_nobody_knows_are_not_kept() -> None:
    side = Side(Limits(), 1)
    strange = b"".join(code.to_bytes(2, "big") + bytes(4) for code in range(1000, 3000))
    known = len(side.connection._dialogue._protocol.remote_settings)
    assert side.hear([frames.frame(frames.SETTINGS, 0, 0, strange)], ends=False) == [""]
    assert len(side.connection._dialogue._protocol.remote_settings) == known
