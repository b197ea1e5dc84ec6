"""Clients that send nothing, send malformed input, or connect when the server is full."""

import asyncio
import json
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tidegate.domain.errors import SettingsInvalid
from tidegate.http_server.limits import ServerTimeouts
from tidegate.http_server.server import WebServer, bind
from tidegate.runtime.interpreter import OPEN_FILES_MAX, raise_open_file_limit

ENVELOPE = {"message", "type", "param", "code"}
ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
REPLY_END = b"hello"


async def hello(request: Request) -> PlainTextResponse:
    del request
    return PlainTextResponse(REPLY_END.decode())


@asynccontextmanager
async def serving(head_seconds: float = 30.0, connections_max: int = 512) -> AsyncIterator[int]:
    listener = bind("127.0.0.1", 0, "server.port")
    port = listener.getsockname()[1]
    server = WebServer(
        Starlette(routes=[Route("/", hello)]),
        listener,
        ServerTimeouts(head_seconds=head_seconds),
        connections_max=connections_max,
    )
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(server.run(), name="server")
        await server.wait_until_listening()
        yield port
        server.stop()


async def ask(port: int, *pieces: bytes) -> bytes:
    """Send each piece but the first after a whole reply; return what follows the last."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces[:-1]:
            writer.write(piece)
            await reader.readuntil(REPLY_END)
        writer.write(pieces[-1])
        return await reader.read()
    finally:
        writer.close()


def check_refusal(reply: bytes, status: int) -> str:
    """Check that a reply is a whole error of ours; return its message."""
    head, _, body = reply.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert first.split()[1] == str(status)
    assert headers["content-type"] == "application/json"
    assert headers["x-request-id"].startswith("req_")
    assert headers["connection"] == "close"
    assert int(headers["content-length"]) == len(body)
    error = json.loads(body)["error"]
    assert set(error) == ENVELOPE
    message: str = error["message"]
    return message


async def test_a_client_that_sends_nothing_is_closed() -> None:
    async with serving(head_seconds=0.05) as port:
        assert await ask(port, b"") == b""


@pytest.mark.parametrize(
    "first", [(), (ASK,)], ids=["on a new connection", "on one that was served"]
)
async def test_half_a_head_gets_no_more_than_its_time(first: tuple[bytes, ...]) -> None:
    async with serving(head_seconds=0.05) as port:
        check_refusal(await ask(port, *first, b"GET / HTTP/1.1\r\nhos"), 408)


async def test_blank_lines_do_not_keep_a_connection() -> None:
    async with serving(head_seconds=0.05) as port:
        assert await ask(port, ASK, b"\r\n") == b""


async def test_the_time_of_a_head_does_not_run_while_it_is_answered() -> None:
    release = asyncio.Event()

    async def slow(request: Request) -> PlainTextResponse:
        await asyncio.sleep(0.2)
        release.set()
        return await hello(request)

    listener = bind("127.0.0.1", 0, "server.port")
    port = listener.getsockname()[1]
    app = Starlette(routes=[Route("/", slow)])
    server = WebServer(app, listener, ServerTimeouts(head_seconds=0.05))
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(server.run(), name="server")
        await server.wait_until_listening()
        reply = await ask(port, ASK + b"GET / HT")
        server.stop()
    assert release.is_set()
    first, found, rest = reply.partition(REPLY_END)
    assert found
    assert first.startswith(b"HTTP/1.1 200 ")
    check_refusal(rest, 408)


async def test_one_connection_past_the_bound_is_sent_away_until_another_ends() -> None:
    async with serving(connections_max=2) as port:
        held = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        for reader, writer in held:
            writer.write(ASK)
            await reader.readuntil(REPLY_END)
        reply = await ask(port, b"")
        check_refusal(reply, 503)
        assert b"\r\nretry-after: 2\r\n" in reply
        for reader, writer in held:
            writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            await reader.read()
            writer.close()
        last = await ask(port, b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert last.endswith(REPLY_END)


@pytest.mark.parametrize(
    ("request_bytes", "status", "message"),
    [
        (b"BREW / HTTP/1.1\r\nhost: x\r\n\r\n", 400, "not valid HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "not valid HTTP"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", 400, "not valid HTTP"),
        (
            b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nTransfer-encoding: chunked\r\n\r\n",
            400,
            "not valid HTTP",
        ),
        (b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n", 400, "no Host header"),
        (b"GET / HTTP/1.1\r\nhost: x\r\na: " + b"b" * 2**20 + b"\r\n\r\n", 431, "larger than"),
    ],
    ids=["method", "garbage", "length", "two framings", "no host", "head"],
)
async def test_malformed_requests_are_answered_with_an_envelope(
    request_bytes: bytes, status: int, message: str
) -> None:
    async with serving() as port:
        assert message in check_refusal(await ask(port, request_bytes), status)
        assert message in check_refusal(await ask(port, ASK, request_bytes), status)


async def test_malformed_bytes_after_a_request_do_not_spoil_its_reply() -> None:
    async with serving() as port:
        reply = await ask(port, ASK + b"\x00\x00")
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert reply.endswith(REPLY_END)


async def test_http_1_0_needs_no_host() -> None:
    async with serving() as port:
        assert (await ask(port, b"GET / HTTP/1.0\r\n\r\n")).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("rows", [b"", b"connection: close\r\n"], ids=["kept", "to be closed"])
@pytest.mark.parametrize("pieces", [1, 64], ids=["in one piece", "in many pieces"])
async def test_a_client_that_never_reads_its_reply_is_given_up(rows: bytes, pieces: int) -> None:
    ended = asyncio.Event()
    size = 32 * 2**20

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % size)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for number in range(pieces):
            more = number < pieces - 1
            body = bytes(size // pieces)
            await send({"type": "http.response.body", "body": body, "more_body": more})
        ended.set()

    listener = bind("127.0.0.1", 0, "server.port")
    port = listener.getsockname()[1]
    timeouts = ServerTimeouts(reply_idle_seconds=0.05)
    server = WebServer(endless, listener, timeouts, connections_max=1)
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(server.run(), name="server")
        await server.wait_until_listening()
        lazy = socket.create_connection(("127.0.0.1", port))
        with lazy:
            lazy.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n" + rows + b"\r\n")
            await ended.wait()
            # Its place is free again, although it is still there.
            while (await ask_first(port)).startswith(b"HTTP/1.1 503 "):
                pass
        server.stop()


async def ask_first(port: int) -> bytes:
    """Return the first line of a reply."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(ASK)
    first = await reader.readline()
    writer.transport.abort()
    return first


def test_the_time_of_a_head_must_be_above_nothing() -> None:
    with pytest.raises(SettingsInvalid, match="head_seconds"):
        ServerTimeouts(head_seconds=0)


def test_open_files_are_raised_to_what_the_system_permits() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    hard = before[1]
    permitted = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    low = min(permitted, 512)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
        raise_open_file_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (permitted, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
