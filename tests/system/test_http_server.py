"""The server in front of the API: bounded heads, silent about itself, stopped in good order."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tidegate.domain.errors import SettingsInvalid
from tidegate.http_server.limits import ServerTimeouts
from tidegate.http_server.protocol import HEADER_BYTES_MAX
from tidegate.http_server.server import WebServer, address_of, bind


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"{len(request.headers.get('x-pad', ''))}")


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[WebServer, int]]:
    listener = bind("127.0.0.1", 0, "server.port")
    port = listener.getsockname()[1]
    server = WebServer(Starlette(routes=[Route("/", hello)]), listener, ServerTimeouts())
    async with asyncio.TaskGroup() as group:
        group.create_task(server.run(), name="server")
        await server.wait_until_listening()
        yield server, port
        server.stop()


async def ask(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(data)
        return await reader.read()
    finally:
        writer.close()


def request_of(size: int) -> bytes:
    """Return a request whose URL, header names and values together have `size` bytes."""
    fixed = len("/" + "host" + "x" + "connection" + "close" + "x-pad")
    pad = b"a" * (size - fixed)
    return b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-pad: " + pad + b"\r\n\r\n"


async def test_a_reply_does_not_name_the_server() -> None:
    async with serving() as (_, port):
        reply = await ask(port, request_of(100))
    assert reply.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nserver:" not in reply.lower()


async def test_a_head_at_the_bound_passes_and_one_byte_more_does_not() -> None:
    async with serving() as (_, port):
        allowed = await ask(port, request_of(HEADER_BYTES_MAX))
        refused = await ask(port, request_of(HEADER_BYTES_MAX + 1))
    assert allowed.startswith(b"HTTP/1.1 200 ")
    assert refused.startswith(b"HTTP/1.1 431 ")


async def test_a_head_that_never_ends_is_cut_off() -> None:
    async with serving() as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nx-pad: ")
        await writer.drain()
        sent = 0
        try:
            while sent < 512 * HEADER_BYTES_MAX:
                writer.write(b"a" * 4_096)
                await writer.drain()
                sent += 4_096
        except ConnectionError:
            pass
        assert sent < 512 * HEADER_BYTES_MAX, "the server took everything"
        writer.close()
        assert reader is not None


async def test_stop_twice_and_before_the_start_is_harmless() -> None:
    listener = bind("127.0.0.1", 0, "server.port")
    server = WebServer(Starlette(), listener, ServerTimeouts())
    server.stop()
    server.stop()
    async with asyncio.timeout(10):
        await server.run()
    assert listener.fileno() == -1


async def test_abort_does_not_wait_for_open_connections() -> None:
    async with asyncio.timeout(10), serving() as (server, port):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n")
        await writer.drain()
        server.abort()
    writer.close()


def test_a_port_in_use_is_reported_in_one_sentence() -> None:
    with bind("127.0.0.1", 0, "server.port") as taken:
        port = taken.getsockname()[1]
        assert address_of(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(SettingsInvalid, match=rf"Port {port} on 127.0.0.1 is in use: .*server"):
            bind("127.0.0.1", port, "server.port")


def test_an_address_of_another_machine_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match=r"Can't listen on 192\.0\.2\.1"):
        bind("192.0.2.1", 0, "server.port")
    with pytest.raises(SettingsInvalid, match="not an address"):
        bind("no such host", 0, "server.port")


def test_addresses_of_both_families_can_be_written() -> None:
    with socket.socket(socket.AF_INET6) as listener:
        assert address_of(listener) == "http://[::]:0"


def test_timeouts_below_a_second_are_refused() -> None:
    with pytest.raises(SettingsInvalid):
        ServerTimeouts(stop_grace_seconds=0)
