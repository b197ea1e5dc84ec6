"""What talks to sockets is tested on both event loops, and has to leave none open."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack

import pytest
import uvloop

from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
async def connect() -> AsyncIterator[Callable[[HttpSettings], HttpUpstream]]:
    """Give a maker of upstreams; each is closed in the end and must then hold nothing."""
    async with AsyncExitStack() as stack:

        def make(settings: HttpSettings) -> HttpUpstream:
            upstream = HttpUpstream(settings)
            stack.push_async_callback(close, upstream)
            return upstream

        yield make


async def close(upstream: HttpUpstream) -> None:
    await upstream.aclose()
    pool = upstream.pool
    assert (pool.open_count, pool.idle_count, pool.queue_length) == (0, 0, 0)
