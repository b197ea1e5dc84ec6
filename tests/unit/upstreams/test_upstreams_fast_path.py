"""What is read quickly is what the parser would have read; all else is left to the parser."""

import pytest
from hypothesis import given, strategies as st

from tidegate.domain.errors import UpstreamFault
from tidegate.upstreams.base import Reply
from tidegate.upstreams.http1.fast_path import LINES_KEPT_MAX, FastReplyParser
from tidegate.upstreams.http1.framing import HeadReader, body_for
from tidegate.upstreams.settings import Limits

LIMITS = Limits(header_bytes_max=200, header_count_max=5, body_bytes_max=8)
PLAIN = b"HTTP/1.1 200 OK\r\nserver: x%b\r\ncontent-length: 3\r\n\r\nabc" % (b"y" * 40)

STARTS = st.sampled_from([
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/1.1 204 No",
    b"HTTP/1.1 304 Not", b"HTTP/1.1 100 Continue", b"HTTP/1.1 600 ?", b"HTTP/1.1 2000 OK",
    b"HTTP/1.1  200 OK", b" HTTP/1.1 200 OK", b"HTTP/1.1 503 \xff", b"HTTP/1.1 429 Too Many",
])  # fmt: skip
LINES = st.sampled_from([
    b"server: x", b"Server:x", b"date: Mon, 01 Jan 2026 00:00:00 GMT", b"content-length: 3",
    b"content-length: 03", b"Content-Length:3", b"content-length: 3 ", b"content-length: +3",
    b"content-length: 3, 3", b"content-length : 3", b"content-length: 4", b"connection: close",
    b"connection: Keep-Alive", b"connection: keep-alive, upgrade", b"transfer-encoding: chunked",
    b"content-encoding: gzip", b"content-encoding: identity", b"upgrade: h2c", b"x: \x00", b"x:",
    b" folded: 1", b"x: a\tb", b"x: \xe9", b"no colon", b": no name", b"x:  two", b"x: a  b ",
    b"x-request-id: 7", b"x\xe9: 1", b"x: a\nb: c", b"x: a\rb", b"", b"trailer: x",
])  # fmt: skip
BODIES = st.sampled_from([b"abc", b"ab", b"abcd", b"", b"abc\r\n\r\n", b"a" * 9])


def parsed(data: bytes) -> tuple[Reply, int, bool] | None:
    """Return what the parser makes of it: the reply, the bytes behind it, whether it is kept."""
    try:
        step = HeadReader(LIMITS).feed(data)
        if step is None:
            return None
        head, rest = step
        body = body_for(head, "POST", LIMITS)
        extra = body.feed(rest) if rest else 0
    except UpstreamFault:
        return None
    if not body.done:
        return None
    reply = Reply(status=head.status, headers=head.headers, body=body.content())
    return reply, extra, head.keeps_alive


@given(STARTS, st.lists(LINES, max_size=6), BODIES)
def test_nothing_is_read_otherwise_than_by_the_parser(
    start: bytes, lines: list[bytes], body: bytes
) -> None:
    data = b"\r\n".join([start, *lines, b"", body])
    quick = FastReplyParser(LIMITS)
    for _ in range(2):  # The second time, lines are remembered.
        reply = quick.read(data)
        if reply is not None:
            assert parsed(data) == (reply, 0, True)


def test_a_plain_reply_is_read() -> None:
    reply = FastReplyParser(LIMITS).read(PLAIN)
    assert reply is not None
    assert (reply.status, reply.body) == (200, b"abc")
    assert reply.headers == {"server": "x" + "y" * 40, "content-length": "3"}


@pytest.mark.parametrize("cut", range(len(PLAIN)))
def test_a_part_of_a_reply_is_left_to_the_parser(cut: int) -> None:
    assert FastReplyParser(LIMITS).read(PLAIN[:cut]) is None


@pytest.mark.parametrize(
    ("limits", "is_read"),
    [
        (Limits(header_bytes_max=len(PLAIN) - 3), True),
        (Limits(header_bytes_max=len(PLAIN) - 4), False),
        (Limits(header_count_max=2), True),
        (Limits(header_count_max=1), False),
        (Limits(body_bytes_max=3), True),
        (Limits(body_bytes_max=2), False),
    ],
)
def test_what_passes_a_bound_is_left_to_the_parser(limits: Limits, *, is_read: bool) -> None:
    assert (FastReplyParser(limits).read(PLAIN) is not None) is is_read


def test_no_more_lines_are_remembered_than_the_bound() -> None:
    quick = FastReplyParser(LIMITS)
    for number in range(3 * LINES_KEPT_MAX):
        assert quick.read(PLAIN.replace(b"server: x", b"server: %d" % number)) is not None
        assert len(quick._lines) <= LINES_KEPT_MAX
