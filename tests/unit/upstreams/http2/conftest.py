"""What talks to sockets is tested on both event loops, and has to leave none open."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack

import pytest
import uvloop

from tidegate.upstreams.http2.upstream import Http2Upstream
from tidegate.upstreams.settings import HttpSettings


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[HttpSettings], Http2Upstream]]:
    """Give a maker of upstreams; each is closed in the end and must then hold nothing."""
    async with AsyncExitStack() as stack:

        def make(settings: HttpSettings) -> Http2Upstream:
            upstream = Http2Upstream(settings)
            stack.push_async_callback(close, upstream)
            return upstream

        yield make


async def close(upstream: Http2Upstream) -> None:
    await upstream.aclose()
    assert upstream.connections.open_count == 0
