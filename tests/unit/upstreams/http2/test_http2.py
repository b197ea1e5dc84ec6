"""HTTP/2 with a server that keeps its rules: calls side by side, ends, limits."""

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from h2.errors import ErrorCodes

from tidegate.domain.errors import ConnectFailed, Refused, TimedOut, UpstreamFault
from tidegate.testing.contract.upstreams import echo, expect_fault
from tidegate.testing.handler_server import HandlerServer
from tidegate.testing.http2_server import Http2Server
from tidegate.testing.http_proxy import HttpProxy
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.http2.upstream import Http2Upstream
from tidegate.upstreams.settings import (
    HttpProtocol,
    HttpSettings,
    ProxySettings,
    Timeouts,
    TlsSettings,
)

Connect = Callable[[HttpSettings], Http2Upstream]

FOLDER = Path(__file__).parents[1] / "certificates"
CALL = Call(path="/v1/x", body=b"{}")
PATIENT = Timeouts(total_seconds=20.0)


def speaking(url: str, timeouts: Timeouts = PATIENT) -> HttpSettings:
    return HttpSettings(
        url=url,
        timeouts=timeouts,
        tls=TlsSettings(ca_file=FOLDER / "authority.pem"),
        protocol=HttpProtocol.HTTP2,
    )


def served(*protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(FOLDER / "server.pem")
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- counters have no event to wait for
            await asyncio.sleep(0)


def _later(than: float) -> bool:
    return asyncio.get_running_loop().time() > than


async def never(_: Call) -> Reply:
    raise TimedOut("Nothing.", phase="first_byte")


async def test_what_a_call_carries(connect: Connect) -> None:
    seen: list[Call] = []

    async def handler(call: Call) -> Reply:
        seen.append(call)
        return Reply(status=200, headers={"x-request-id": "é", "set-cookie": "a=b"}, body=b"{}")

    async with Http2Server(handler) as server:
        settings = HttpSettings(
            url=f"{server.url}/prefix/v1",
            api_key="the-key",
            headers={"X-Team": "blue", "accept": "x"},
            protocol=HttpProtocol.HTTP2,
        )
        upstream = connect(settings)
        call = Call(path="/v1/x", body=b"{}", headers={"x-request-id": "r", "traceparent": "t"})
        reply = await upstream.send(call)
        await upstream.send(Call(path="/v1/models", body=b"", method="GET"))
    assert reply.headers == {"x-request-id": "é", "set-cookie": "a=b"}
    fixed = {
        "accept-encoding": "identity",
        "accept": "x",
        "user-agent": "tidegate",
        "x-team": "blue",
        "authorization": "Bearer the-key",
    }
    first, second = seen
    assert (first.method, first.path) == ("POST", "/prefix/v1/x")
    assert first.headers == {
        **fixed,
        "x-request-id": "r",
        "traceparent": "t",
        "content-type": "application/json",
        "content-length": "2",
    }
    # Nothing of a reply comes back to the server with the next call.
    assert (second.method, second.path) == ("GET", "/prefix/v1/models")
    assert second.headers == fixed


@pytest.mark.parametrize(
    "call",
    [
        Call(path="x", body=b""),
        Call(path="/v1/x", body=b"", method="CONNECT"),
        Call(path="/v1/x", body=b"", headers={"cookie": "a"}),
        Call(path="/v1/x", body=b"", headers={"x-request-id": "a\r\nb: c"}),
    ],
)
async def test_what_may_not_be_sent_is_not(connect: Connect, call: Call) -> None:
    async with Http2Server(echo) as server:
        upstream = connect(speaking(server.url))
        with pytest.raises(Refused):
            await upstream.send(call)
        assert server.connections_seen == 0


async def test_calls_go_over_tls_by_agreement(connect: Connect) -> None:
    large = b"b" * 3_000_000
    async with Http2Server(echo, tls=served("h2", "http/1.1")) as server:
        upstream = connect(speaking(server.url))
        replies = await asyncio.gather(
            *(upstream.send(Call(path="/v1/x", body=body)) for body in (b"a", large, b"c"))
        )
        assert [reply.body for reply in replies] == [b"a", large, b"c"]
        assert server.connections_seen == 1


async def test_calls_go_through_the_tunnel_of_a_proxy(connect: Connect) -> None:
    async with (
        Http2Server(echo, tls=served("h2")) as server,
        HttpProxy({"localhost:443": server.port}) as proxy,
    ):
        settings = HttpSettings(
            url="https://localhost",
            tls=TlsSettings(ca_file=FOLDER / "authority.pem"),
            protocol=HttpProtocol.HTTP2,
            proxy=ProxySettings(url=proxy.url),
        )
        assert (await connect(settings).send(CALL)).body == b"{}"
        assert [head.split("\r\n")[0] for head in proxy.heads] == ["CONNECT localhost:443 HTTP/1.1"]


@pytest.mark.parametrize("protocols", [(), ("http/1.1",)])
async def test_a_server_that_speaks_http_1_over_tls_is_told_apart(
    connect: Connect, protocols: tuple[str, ...]
) -> None:
    async with Http2Server(echo, tls=served(*protocols)) as server:
        fault = await expect_fault(connect(speaking(server.url)), CALL, ConnectFailed)
        assert "set protocol to http1" in str(fault) or "TLS with" in str(fault)


async def test_a_server_that_speaks_http_1_in_the_clear_is_told_apart(connect: Connect) -> None:
    async with HandlerServer(echo) as server:
        fault = await expect_fault(
            connect(speaking(server.url, Timeouts(connect_seconds=1.0))), CALL, ConnectFailed
        )
        assert "set protocol to http1" in str(fault)


async def test_a_server_that_says_nothing_meets_the_limit_of_connecting(connect: Connect) -> None:
    async with asyncio.timeout(20), await asyncio.start_server(_keep, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        upstream = connect(speaking(f"http://127.0.0.1:{port}", Timeouts(connect_seconds=0.1)))
        fault = await expect_fault(upstream, CALL, TimedOut)
        assert isinstance(fault, TimedOut)
        assert fault.phase == "connect"
        await reached(lambda: upstream.connections.open_count == 0)


async def _keep(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(2**16):
            pass
    finally:
        writer.transport.abort()


# Cancelling


async def test_a_cancelled_call_ends_at_the_server_and_leaves_the_others(connect: Connect) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()
    ended: list[bytes] = []

    async def handler(call: Call) -> Reply:
        if call.body == b"slow":
            arrived.set()
        try:
            await go_on.wait()
        except asyncio.CancelledError:
            ended.append(call.body)
            raise
        return await echo(call)

    async with Http2Server(handler) as server:
        upstream = connect(speaking(server.url))
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            slow = group.create_task(upstream.send(Call(path="/v1/x", body=b"slow")), name="slow")
            other = group.create_task(upstream.send(CALL), name="other")
            await arrived.wait()
            slow.cancel()
            await server.reset.wait()
            go_on.set()
        assert slow.cancelled()
        assert other.result().body == b"{}"
        await reached(lambda: ended == [b"slow"])
        assert server.resets == [ErrorCodes.CANCEL]
        assert server.connections_seen == 1


async def test_a_receiver_that_abandons_its_call_hears_nothing(connect: Connect) -> None:
    class Ear:
        heard = 0

        def on_reply(self, result: object) -> None:
            self.heard += 1

    gate = asyncio.Event()

    async def handler(call: Call) -> Reply:
        if call.body == b"held":
            await gate.wait()
        return await echo(call)

    async with Http2Server(handler) as server:
        upstream = connect(speaking(server.url))
        one, two = Ear(), Ear()
        assert upstream.begin(CALL, one) is None  # There is no connection yet.
        await upstream.send(CALL)
        held = upstream.begin(Call(path="/v1/x", body=b"held"), one)
        done = upstream.begin(CALL, two)
        assert held is not None
        assert done is not None
        await reached(lambda: two.heard == 1)
        held.abandon(two)  # Not who waits for it.
        held.abandon(one)
        held.abandon(one)
        done.abandon(two)
        await server.reset.wait()
        gate.set()
        await upstream.send(CALL)
        assert (one.heard, two.heard, server.resets) == (0, 1, [ErrorCodes.CANCEL])


# Time


@pytest.mark.parametrize("phase", ["first_byte", "total"])
async def test_silence_ends_a_call_and_then_its_connection(connect: Connect, phase: str) -> None:
    async def handler(call: Call) -> Reply:
        return await (never(call) if call.method == "GET" else echo(call))

    timeouts = Timeouts(keep_alive_seconds=600.0, **{f"{phase}_seconds": 0.1})
    async with Http2Server(handler) as server:
        upstream = connect(speaking(server.url, timeouts))
        await upstream.send(CALL)
        heard = asyncio.get_running_loop().time()
        await reached(partial(_later, heard))
        call = Call(path="/v1/x", body=b"", method="GET")
        fault = await expect_fault(upstream, call, TimedOut)
        assert isinstance(fault, TimedOut)
        assert fault.phase == phase
        await server.reset.wait()
        # Nothing at all came: who knows whether there is anybody left.
        await reached(lambda: server.open_count == 0)


async def test_a_call_that_waits_too_long_leaves_a_living_connection(connect: Connect) -> None:
    async def handler(call: Call) -> Reply:
        return await (never(call) if call.body == b"slow" else echo(call))

    async with Http2Server(handler) as server:
        upstream = connect(speaking(server.url, Timeouts(first_byte_seconds=0.3)))
        async with asyncio.TaskGroup() as group:
            slow = group.create_task(
                expect_fault(upstream, Call(path="/v1/x", body=b"slow"), TimedOut), name="slow"
            )
            await reached(lambda: server.open_count == 1)
            while not slow.done():
                await upstream.send(CALL)
        await upstream.send(CALL)
        assert server.connections_seen == 1


async def test_an_idle_connection_is_closed_in_time(connect: Connect) -> None:
    async with Http2Server(echo) as server:
        upstream = connect(speaking(server.url, Timeouts(keep_alive_seconds=0.1)))
        await upstream.send(CALL)
        await reached(lambda: upstream.connections.open_count == 0)
        await upstream.send(CALL)
        assert server.connections_seen == 2


async def test_an_old_connection_takes_no_other_call(connect: Connect) -> None:
    async with Http2Server(echo) as server:
        upstream = connect(speaking(server.url, Timeouts(connection_age_seconds=1e-6)))
        for number in range(3):
            await upstream.send(CALL)
            assert server.connections_seen == number + 1
            sent = asyncio.get_running_loop().time()
            await reached(partial(_later, sent))


# Closing


async def test_closing_ends_calls_under_way(connect: Connect) -> None:
    async with Http2Server(never) as server:
        upstream = connect(speaking(server.url))
        async with asyncio.TaskGroup() as group:
            sent = group.create_task(expect_fault(upstream, CALL, UpstreamFault), name="sent")
            await reached(lambda: server.open_count == 1 and upstream.connections.open_count == 1)
            await asyncio.gather(upstream.aclose(), upstream.aclose())
        assert "closed" in str(sent.result())
