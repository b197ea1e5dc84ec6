"""Connections of the simulated server: hang-ups, slow readers, odd requests, bounds, stopping."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from testkit.servers.simulated import Simulated, simulated
from tidegate.http_server.server import address_of, bind
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.server.service import SimulatorServer
from tidegate.simulator.settings import SimulatorSettings
from tidegate.simulator.web.connection import (
    BODY_BYTES_MAX,
    HEAD_BYTES_MAX,
    PIPELINED_MAX,
    UNSENT_BYTES_MAX,
)
from tidegate.simulator.web.server import Patience

STEP = Cost.of_seconds(fixed=0.002, prefill_token=0.0, decode_seq=0.0, context_token=0.0)
LONG = SimulatorSettings(cost=STEP, engine=EngineSettings(kv_blocks=100_000, max_num_seqs=1_024))
SECONDS_MAX = 20.0


def request(path: str = "/v1/completions", **body: object) -> bytes:
    data = json.dumps({"prompt": "x", **body}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: sim\r\ncontent-length: {len(data)}\r\n\r\n"
    return head.encode() + data


class Peer:
    """A client that sends bytes and reads replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> str:
        async with asyncio.timeout(SECONDS_MAX):
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def reply(self) -> tuple[int, bytes]:
        """Return status and body of a reply of known length."""
        head = await self.head()
        length = int(head.lower().partition("content-length: ")[2].partition("\r")[0])
        async with asyncio.timeout(SECONDS_MAX):
            return int(head.split()[1]), await self.reader.readexactly(length)

    async def rest(self) -> bytes:
        async with asyncio.timeout(SECONDS_MAX):
            return await self.reader.read()


@asynccontextmanager
async def peer_of(server: Simulated) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield Peer(reader, writer)
    finally:
        writer.transport.abort()


async def test_a_thousand_hang_ups_leak_nothing() -> None:
    async with simulated(LONG) as server:
        for round_ in range(10):
            bodies = [
                request(
                    max_tokens=10_000, ignore_eos=True, stream=n % 2 == 0, prompt=f"{round_} {n}"
                )
                for n in range(100)
            ]
            peers = [
                await asyncio.open_connection("127.0.0.1", server.port) for _ in range(len(bodies))
            ]
            for (_, writer), data in zip(peers, bodies, strict=True):
                writer.write(data)
            await server.until(lambda: server.simulator.in_flight == 100)
            for _, writer in peers:
                writer.transport.abort()
            await server.until_idle()
        engine = server.simulator.driver.engine
        assert engine.counts.aborted == 1_000
        assert engine.pool.held == 0
        assert server.simulator.driver.unfinished == 0
        assert server.simulator.driver.queued_tokens == 0
        assert server.simulator.in_flight == 0


async def test_a_reader_that_stalls_costs_no_memory_and_loses_nothing() -> None:
    fast = SimulatorSettings(engine=LONG.engine)
    with socket.socket() as small:
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        small.setblocking(False)
        async with simulated(fast) as server:
            loop = asyncio.get_running_loop()
            await loop.sock_connect(small, ("127.0.0.1", server.port))
            count = 32_000
            await loop.sock_sendall(small, request(max_tokens=count, ignore_eos=True, stream=True))
            connections = server.server._connections
            await server.until(lambda: any(each.is_stalled for each in connections))
            engine = server.simulator.driver.engine
            await server.until(lambda: engine.counts.generated_tokens == count)
            waiting = [
                each._transport.get_write_buffer_size() for each in connections if each._transport
            ]
            assert server.simulator.in_flight == 1
            assert UNSENT_BYTES_MAX < sum(waiting) < 2 * UNSENT_BYTES_MAX
            heard = bytearray()
            async with asyncio.timeout(60):
                while b"[DONE]" not in heard[-64:]:
                    heard += await loop.sock_recv(small, 1 << 20)
            assert heard.count(b"data: {") == count
            await server.until_idle()


async def test_a_reader_that_stalls_too_long_is_dropped() -> None:
    patience = Patience(stall_seconds=0.1)
    fast = SimulatorSettings(engine=LONG.engine)
    async with simulated(fast, patience=patience) as server, peer_of(server) as peer:
        transport = peer.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        for _ in range(8):
            peer.send(request(max_tokens=30_000, ignore_eos=True, stream=True))
        await server.until(lambda: server.simulator.in_flight > 0)
        await server.until(lambda: server.server.connections == 0)
        await server.until_idle()


async def test_one_connection_serves_many_requests_also_sent_ahead() -> None:
    async with simulated() as server, peer_of(server) as peer:
        for number in range(3):
            peer.send(request(prompt=f"{number}", max_tokens=2))
            assert (await peer.reply())[0] == 200
        peer.send(b"".join([request(n=2, max_tokens=n + 1, ignore_eos=True) for n in range(8)]))
        counts = [
            json.loads((await peer.reply())[1])["usage"]["completion_tokens"] for _ in range(8)
        ]
        assert counts == [2 * (n + 1) for n in range(8)]


@pytest.mark.parametrize("extra", [0, 1])
async def test_a_bounded_number_of_requests_may_be_sent_ahead(extra: int) -> None:
    async with simulated(LONG) as server, peer_of(server) as peer:
        peer.send(request(max_tokens=20, ignore_eos=True))
        await server.until(lambda: server.simulator.in_flight == 1)
        ahead = PIPELINED_MAX + extra
        peer.send(b"GET /health HTTP/1.1\r\nhost: sim\r\n\r\n" * ahead)
        if extra:
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await peer.reply()
            await server.until_idle()
        else:
            assert [(await peer.reply())[0] for _ in range(1 + ahead)] == [200] * (1 + ahead)


async def test_bodies_in_pieces_and_after_a_question() -> None:
    async with simulated() as server, peer_of(server) as peer:
        data = b'{"prompt":"x","max_tokens":1}'
        peer.send(b"POST /v1/completions HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n")
        for byte in data:
            peer.send(b"1\r\n%c\r\n" % byte)
        peer.send(b"0\r\n\r\n")
        assert (await peer.reply())[0] == 200
        peer.send(
            b"POST /v1/completions HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\n"
            b"content-length: %d\r\n\r\n" % len(data)
        )
        assert (await peer.head()).startswith("HTTP/1.1 100 ")
        peer.send(data)
        assert (await peer.reply())[0] == 200


async def test_an_old_client_gets_a_stream_that_ends_with_the_connection() -> None:
    async with simulated() as server, peer_of(server) as peer:
        data = request(max_tokens=3, ignore_eos=True, stream=True)
        peer.send(data.replace(b"HTTP/1.1", b"HTTP/1.0"))
        heard = await peer.rest()
        assert b"chunked" not in heard
        assert heard.count(b"data: {") == 3
        assert heard.endswith(b"data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: a\r\nbad header\r\n\r\n", 400),
        (b"GET /" + b"x" * HEAD_BYTES_MAX + b" HTTP/1.1\r\nhost: a\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (
            b"POST /v1/completions HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % (BODY_BYTES_MAX + 1),
            413,
        ),
        (b"POST /v1/completions HTTP/1.1\r\ncontent-length: " + b"9" * 40 + b"\r\n\r\n", 400),
        (b"GET http://a/health HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        (b"GET /health?x=1 HTTP/1.1\r\nhost: a\r\n\r\n", 200),
        (b"GET /%68ealth HTTP/1.1\r\nhost: a\r\n\r\n", 404),
        (b"BREW /health HTTP/1.1\r\nhost: a\r\n\r\n", 400),
    ],
    ids=lambda value: value[:24].decode() if isinstance(value, bytes) else str(value),
)
async def test_odd_requests_get_an_answer_and_never_a_500(data: bytes, status: int) -> None:
    async with simulated() as server, peer_of(server) as peer:
        peer.send(data)
        assert (await peer.reply())[0] == status


async def test_a_body_at_the_bound_is_read_and_one_beyond_is_not() -> None:
    async with simulated() as server:
        for extra, status in ((0, 200), (1, 413)):
            start = b'{"prompt":"x","max_tokens":1,"user":"'
            data = start + b"y" * (BODY_BYTES_MAX + extra - len(start) - 2) + b'"}'

            async def in_pieces(data: bytes = data) -> AsyncIterator[bytes]:
                for place in range(0, len(data), 1 << 20):
                    yield data[place : place + (1 << 20)]

            reply = await server.client.post("/v1/completions", content=in_pieces())
            assert reply.status_code == status


async def test_what_takes_too_long_is_ended() -> None:
    patience = Patience(head_seconds=0.1, body_seconds=0.1, idle_seconds=0.1)
    async with simulated(patience=patience) as server:
        async with peer_of(server) as peer:
            assert await peer.rest() == b""
        async with peer_of(server) as peer:
            peer.send(b"GET /health HTT")
            assert (await peer.reply())[0] == 408
        async with peer_of(server) as peer:
            peer.send(request()[:-3])
            assert (await peer.reply())[0] == 408
        async with peer_of(server) as peer:
            peer.send(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await peer.reply())[0] == 200
            assert await peer.rest() == b""
        assert server.server.connections == 0


async def test_one_connection_too_many_is_turned_away() -> None:
    async with (
        simulated(connections_max=2) as server,
        peer_of(server) as first,
        peer_of(server) as second,
    ):
        for peer in (first, second):
            peer.send(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
            assert (await peer.reply())[0] == 200
        async with peer_of(server) as third:
            assert (await third.reply())[0] == 503
        first.send(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n")
        assert (await first.reply())[0] == 200


async def test_a_stopped_server_ends_what_it_began_and_an_aborted_one_does_not() -> None:
    for forced in (False, True):
        listener = bind("127.0.0.1", 0, "port")
        port = int(address_of(listener).rpartition(":")[2])
        server = SimulatorServer(LONG, listener)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(server.run(), name="server")
            await server.wait_until_listening()
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            idle = await asyncio.open_connection("127.0.0.1", port)
            tokens = 5_000 if forced else 100
            writer.write(request(max_tokens=tokens, ignore_eos=True, stream=True))
            peer = Peer(reader, writer)
            assert "200 OK" in await peer.head()
            server.stop()
            if forced:
                server.abort()
            async with asyncio.timeout(SECONDS_MAX):
                try:
                    heard = await reader.read()
                except ConnectionError:
                    heard = b""
                assert (b"[DONE]" in heard) is not forced
                await running
            writer.close()
            idle[1].close()
