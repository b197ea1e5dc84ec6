"""Every upstream keeps the contract: in memory, and over HTTP on both event loops.

The back-ends are `tidegate.upstreams.memory` and `tidegate.upstreams.http1`, which is also tested
through a proxy.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from testkit.servers.handler import HandlerServer
from testkit.servers.proxy import HttpProxy
from tidegate.domain.errors import ConnectFailed
from tidegate.testing.contract import upstreams as contract
from tidegate.upstreams.base import Call, Reply, Upstream
from tidegate.upstreams.http1.upstream import HttpUpstream, ProxiedUpstream
from tidegate.upstreams.memory import Handler, MemoryUpstream
from tidegate.upstreams.settings import HttpSettings, ProxySettings, Timeouts

TIMEOUTS = Timeouts(first_byte_seconds=1.0)


@pytest.fixture(params=["memory", "http", "http with a /v1 in its URL", "http through a proxy"])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def make(kind: str, url: str, proxy: str = "") -> Upstream:
    if "proxy" in kind:
        return ProxiedUpstream(
            HttpSettings(url="http://models", timeouts=TIMEOUTS, proxy=ProxySettings(url=proxy))
        )
    url += "/v1" if "/v1" in kind else ""
    return HttpUpstream(HttpSettings(url=url, timeouts=TIMEOUTS))


@pytest.fixture
async def open_upstream(kind: str) -> AsyncIterator[contract.OpenUpstream]:
    async with AsyncExitStack() as stack:

        async def opened(handler: Handler) -> Upstream:
            if kind == "memory":
                return MemoryUpstream(handler)
            server = await stack.enter_async_context(HandlerServer(handler))
            proxy = await stack.enter_async_context(HttpProxy({"models:80": server.port}))
            upstream = make(kind, server.url, proxy.url)
            stack.push_async_callback(upstream.aclose)
            return upstream

        yield opened


@pytest.fixture
async def unreachable(kind: str) -> AsyncIterator[Upstream]:
    async def nobody(_: Call) -> Reply:
        raise ConnectFailed("Nobody is there.")

    if kind == "memory":
        yield MemoryUpstream(nobody)
        return
    # A port that is taken but not listened on refuses connections and can't go to anyone else.
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        url = f"http://127.0.0.1:{port}"
        upstream = make(kind, url, url)
        yield upstream
        await upstream.aclose()


class TestSend(contract.SendContract):
    pass


class TestFaults(contract.FaultContract):
    pass


class TestCancel(contract.CancelContract):
    pass


class TestClose(contract.CloseContract):
    pass


async def test_memory_counts_its_calls() -> None:
    everyone = asyncio.Event()

    async def handler(call: Call) -> Reply:
        if upstream.in_flight == 3:
            everyone.set()
        await everyone.wait()
        return await contract.echo(call)

    upstream = MemoryUpstream(handler)
    calls = [Call(path=contract.PATH, body=b"%d" % number) for number in range(3)]
    await asyncio.gather(*(upstream.send(call) for call in calls))
    assert (upstream.in_flight, upstream.in_flight_max_seen, upstream.calls_seen) == (0, 3, 3)
