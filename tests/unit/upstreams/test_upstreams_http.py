"""The HTTP upstream against servers that misbehave: each reply has one fate, and none leaks."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from testkit.servers.hostile import (
    Await,
    Close,
    HostileServer,
    ReadRequest,
    ReadSome,
    Reset,
    Say,
    Script,
    answers,
    plain_reply,
)
from tidegate.domain.errors import ConnectFailed, Refused, ReplyBroken, ReplyTooLarge, UpstreamFault
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.upstreams.base import Call
from tidegate.upstreams.http1.connection import JOINED_BYTES_MAX
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Limits, Timeouts

Connect = Callable[[HttpSettings], HttpUpstream]

READ = ReadRequest()
CALL = Call(path="/v1/x", body=b"{}")
# A test that waits for what never comes shall fail within seconds.
PATIENT = Timeouts(total_seconds=20.0)
LIMITS = Limits(
    header_bytes_max=1024,
    header_count_max=8,
    body_bytes_max=4096,
    chunk_extension_bytes_max=64,
    interim_replies_max=3,
)


async def test_one_connection_serves_call_after_call(connect: Connect) -> None:
    async with HostileServer(
        answers(plain_reply(b"a"), plain_reply(b""), plain_reply(b"c"))
    ) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        assert [(await upstream.send(CALL)).body for _ in range(3)] == [b"a", b"", b"c"]
        assert len(server.received) == 1
        assert upstream.pool.idle_count == 1


@pytest.mark.parametrize("size", [JOINED_BYTES_MAX, JOINED_BYTES_MAX + 1])
async def test_a_body_leaves_whole_joined_with_its_head_or_not(connect: Connect, size: int) -> None:
    async with HostileServer(answers(plain_reply(b"a"))) as server:
        await connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT)).send(
            Call(path="/v1/x", body=b"b" * size)
        )
        head, _, body = bytes(server.received[0]).partition(b"\r\n\r\n")
        assert b"content-length: %d" % size in head
        assert body == b"b" * size


async def test_a_call_that_may_not_be_sent_opens_no_connection(connect: Connect) -> None:
    async with HostileServer(answers(plain_reply(b"a"))) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        with pytest.raises(Refused):
            await upstream.send(Call(path="/v1/x", body=b"", headers={"cookie": "a"}))
        assert server.received == []


# Hygiene: what comes next must not be taken for another call's reply.

POISON = plain_reply(b"poison")
CLOSING: dict[str, tuple[Script, bytes]] = {
    "two replies in one packet": (answers(plain_reply(b"mine") + POISON), b"mine"),
    "a reply longer than its length": (answers(plain_reply(b"mine") + b" and more"), b"mine"),
    "line ends after the reply": (answers(plain_reply(b"mine") + b"\r\n"), b"mine"),
    "bytes after the last chunk": (
        answers(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nmine\r\n0\r\n\r\n" + POISON
        ),
        b"mine",
    ),
    "connection: close": (answers(plain_reply(b"mine", b"connection: close")), b"mine"),
    "connection: close among others": (
        answers(plain_reply(b"mine", b"Connection: a, Close")),
        b"mine",
    ),
    "connection: close, then another": (
        answers(plain_reply(b"mine", b"connection: close", b"connection: keep-alive")),
        b"mine",
    ),
    "HTTP/1.0": (answers(plain_reply(b"mine").replace(b"HTTP/1.1", b"HTTP/1.0")), b"mine"),
    "an end by closing": ((READ, Say(b"HTTP/1.1 200 OK\r\n\r\nmine"), Close()), b"mine"),
    "204 with a length": (answers(b"HTTP/1.1 204 No\r\ncontent-length: 6\r\n\r\n"), b""),
    "204 with a body": (answers(b"HTTP/1.1 204 No\r\n\r\n" + POISON), b""),
    "304 with chunks": (answers(b"HTTP/1.1 304 No\r\ntransfer-encoding: chunked\r\n\r\n"), b""),
}


@pytest.mark.parametrize("name", CLOSING)
async def test_a_reply_after_which_the_connection_is_closed(connect: Connect, name: str) -> None:
    script, body = CLOSING[name]
    async with HostileServer(script, answers(plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        assert (await upstream.send(CALL)).body == body
        assert (await upstream.send(CALL)).body == b"next"
        await server.closed[0].wait()
        assert len(server.received) == 2


@pytest.mark.parametrize(
    ("method", "status"), [("POST", 204), ("POST", 304), ("POST", 500), ("POST", 404), ("GET", 200)]
)
async def test_a_reply_without_a_body_keeps_the_connection(
    connect: Connect, method: str, status: int
) -> None:
    row = b"" if status in {204, 304} else b"content-length: 0\r\n"
    empty = b"HTTP/1.1 %d Some Words\r\n%b\r\n" % (status, row)
    async with HostileServer(answers(empty, plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        reply = await upstream.send(Call(path="/v1/x", body=b"", method=method))
        assert (reply.status, reply.body) == (status, b"")
        assert (await upstream.send(CALL)).body == b"next"
        assert len(server.received) == 1


async def test_a_reply_to_head_has_no_body(connect: Connect) -> None:
    async with HostileServer(
        answers(plain_reply(b"")[:-4] + b"\r\nx: y\r\n\r\n"), answers(plain_reply(b"n"))
    ) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        reply = await upstream.send(Call(path="/v1/x", body=b"", method="HEAD"))
        assert (reply.status, reply.body, reply.headers["x"]) == (200, b"", "y")


async def test_bytes_on_an_idle_connection_close_it(connect: Connect) -> None:
    go_on = asyncio.Event()
    first: Script = (*answers(plain_reply(b"mine")), Await(go_on), Say(POISON))
    async with HostileServer(first, answers(plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        assert (await upstream.send(CALL)).body == b"mine"
        go_on.set()
        await server.closed[0].wait()
        assert upstream.pool.idle_count == 0
        assert (await upstream.send(CALL)).body == b"next"


async def test_an_idle_connection_that_the_server_closes_is_forgotten(connect: Connect) -> None:
    go_on = asyncio.Event()
    first: Script = (*answers(plain_reply(b"mine")), Await(go_on), Close())
    async with HostileServer(first, answers(plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        await upstream.send(CALL)
        go_on.set()
        await server.closed[0].wait()
        assert (await upstream.send(CALL)).body == b"next"


async def test_a_reply_before_the_request_is_read_closes_the_connection(connect: Connect) -> None:
    large = Call(path="/v1/x", body=b"b" * 32 * 2**20)
    early: Script = (
        ReadSome(),
        Say(b"HTTP/1.1 413 Large\r\ncontent-length: 0\r\n\r\n"),
        Await(asyncio.Event()),
    )
    async with HostileServer(early, answers(plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        assert (await upstream.send(large)).status == 413
        assert upstream.pool.idle_count == 0
        assert (await upstream.send(CALL)).body == b"next"


# Faults

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
FAULTS: dict[str, tuple[Script, type[UpstreamFault], str]] = {
    "closed without a reply": ((READ, Close()), ReplyBroken, "without a reply"),
    "reset without a reply": ((READ, Reset()), ReplyBroken, "without a reply"),
    "closed in the head": (
        (READ, Say(plain_reply(b"a")[:20]), Close()),
        ReplyBroken,
        "in the middle",
    ),
    "closed in the body": (
        (READ, Say(plain_reply(b"ab")[:-1]), Close()),
        ReplyBroken,
        "in the middle",
    ),
    "reset in the body": (
        (READ, Say(plain_reply(b"ab")[:-1]), Reset()),
        ReplyBroken,
        "in the middle",
    ),
    "closed in a chunk": ((READ, Say(CHUNKED + b"5\r\nab"), Close()), ReplyBroken, "in the middle"),
    "closed before the last chunk": (
        (READ, Say(CHUNKED + b"1\r\na\r\n"), Close()),
        ReplyBroken,
        "in the middle",
    ),
    "closed in the last chunk": (
        (READ, Say(CHUNKED + b"1\r\na\r\n0\r\n"), Close()),
        ReplyBroken,
        "in the middle",
    ),
    "closed after an interim reply": ((READ, Say(INTERIM), Close()), ReplyBroken, "in the middle"),
    "a reset where closing would be the end": (
        (READ, Say(b"HTTP/1.1 200 OK\r\n\r\nhalf"), Reset()),
        ReplyBroken,
        "in the middle",
    ),
    "no HTTP": (answers(b"-ERR unknown command\r\n"), ReplyBroken, "begin as an HTTP/1"),
    "a status that is none": (answers(b"HTTP/1.1 abc\r\n\r\n"), ReplyBroken, "well-formed"),
    "an upgrade": (
        answers(b"HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
        ReplyBroken,
        "another protocol",
    ),
    "a bare 101": (answers(b"HTTP/1.1 101 S\r\n\r\n"), ReplyBroken, "Upgrade"),
    "compression": (
        answers(plain_reply(b"x", b"content-encoding: br")),
        ReplyBroken,
        "compression",
    ),
    "too many interim replies": (answers(INTERIM * 4), ReplyTooLarge, "interim_replies_max"),
    "endless headers": (
        answers(b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10),
        ReplyTooLarge,
        "header_count_max",
    ),
    "an endless header": (
        answers(b"HTTP/1.1 200 OK\r\na: " + b"v" * 10_000),
        ReplyTooLarge,
        "header_bytes_max",
    ),
    "a body beyond the bound": (answers(plain_reply(b"b" * 4097)), ReplyTooLarge, "body_bytes_max"),
    "an endless body": (
        answers(b"HTTP/1.1 200 OK\r\n\r\n" + b"b" * 5000),
        ReplyTooLarge,
        "body_bytes_max",
    ),
    "an endless extension": (
        answers(CHUNKED + b"1;" + b"e" * 1000),
        ReplyTooLarge,
        "chunk_extension_bytes_max",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_has_its_name_and_closes_the_connection(
    connect: Connect, name: str
) -> None:
    script, kind, word = FAULTS[name]
    async with HostileServer(script, answers(plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        fault = await expect_fault(upstream, CALL, UpstreamFault)
        assert type(fault) is kind
        assert word in str(fault)
        await server.closed[0].wait()
        assert upstream.pool.idle_count == 0
        assert (await upstream.send(CALL)).body == b"next"
        # A fresh connection's call is never replayed: one request came, and the next one.
        assert len(server.received) == 2


@pytest.mark.parametrize("step", [Close(), Reset(), Say(b"220 hello\r\n")])
async def test_a_server_that_does_not_wait_for_the_call(
    connect: Connect, step: Close | Reset | Say
) -> None:
    """It is seen before the call was sent or after: either way the call ends, and with a fault."""
    async with HostileServer((step,)) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        for _ in range(10):
            fault = await expect_fault(upstream, CALL, UpstreamFault)
            assert type(fault) in {ConnectFailed, ReplyBroken}
        assert len(server.received) == 10


async def test_interim_replies_are_skipped_up_to_their_bound(connect: Connect) -> None:
    async with HostileServer(answers(INTERIM * 3 + plain_reply(b"a"), plain_reply(b"b"))) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        assert (await upstream.send(CALL)).body == b"a"
        assert (await upstream.send(CALL)).body == b"b"
        assert len(server.received) == 1


async def test_a_body_at_the_bound_is_taken(connect: Connect) -> None:
    async with HostileServer(answers(plain_reply(b"b" * 4096))) as server:
        assert (
            await connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT)).send(CALL)
        ).body == b"b" * 4096


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(piece=st.integers(1, 40), name=st.sampled_from(["sized", "chunked", "open", "interim"]))
async def test_any_pieces_make_the_same_reply(connect: Connect, piece: int, name: str) -> None:
    reply = {
        "sized": plain_reply(b"hello world", b"x: y"),
        "chunked": CHUNKED + b"5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nt: u\r\n\r\n",
        "open": b"HTTP/1.1 200 OK\r\nx: y\r\n\r\nhello world",
        "interim": INTERIM + plain_reply(b"hello world"),
    }[name]
    async with HostileServer((READ, Say(reply, piece), Close())) as server:
        upstream = connect(HttpSettings(url=server.url, limits=LIMITS, timeouts=PATIENT))
        assert (await upstream.send(CALL)).body == b"hello world"
        await upstream.aclose()
