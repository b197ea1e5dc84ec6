"""Calls that begin immediately: answered once, abandoned cleanly, else left to `send`."""

import asyncio

import pytest

from testkit.servers.handler import HandlerServer
from testkit.servers.hostile import Close, HostileServer, ReadRequest, Say, plain_reply
from tidegate.domain.errors import Refused, UpstreamFault
from tidegate.testing.contract.upstreams import echo
from tidegate.upstreams.base import Call, Reply, StaleConnection
from tidegate.upstreams.http1.reply_waiter import ReplyWaiter
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings

FIRST = Call(path="/v1/echo", body=b'"first"')
SECOND = Call(path="/v1/echo", body=b'"second"')


async def opened(url: str) -> HttpUpstream:
    """Return an upstream with one free connection."""
    upstream = HttpUpstream(HttpSettings(url=url))
    await upstream.send(FIRST)
    assert upstream.pool.idle_count == 1
    return upstream


async def test_a_call_begins_on_a_free_connection_and_is_answered() -> None:
    async with HandlerServer(echo) as server:
        upstream = await opened(server.url)
        waiter = ReplyWaiter()
        assert upstream.begin(SECOND, waiter) is not None
        assert not waiter.future.done(), "answered before it could have been sent"
        assert (await waiter.future).body == (await upstream.send(SECOND)).body
        assert upstream.pool.open_count == 1
        await upstream.aclose()


async def test_without_a_free_connection_nothing_begins() -> None:
    async with HandlerServer(echo) as server:
        upstream = HttpUpstream(HttpSettings(url=server.url))
        assert upstream.begin(FIRST, ReplyWaiter()) is None
        await upstream.send(FIRST)
        one, other = ReplyWaiter(), ReplyWaiter()
        assert upstream.begin(FIRST, one) is not None
        assert upstream.begin(SECOND, other) is None
        await one.future
        assert not other.future.done()
        await upstream.aclose()


async def test_an_abandoned_call_gets_no_reply_and_answers_no_other() -> None:
    released = asyncio.Event()

    async def handler(call: Call) -> Reply:
        if call.body == SECOND.body:
            await released.wait()
        return await echo(call)

    async with HandlerServer(handler) as server:
        upstream = await opened(server.url)
        waiter = ReplyWaiter()
        sending = upstream.begin(SECOND, waiter)
        assert sending is not None
        sending.abandon(waiter)
        released.set()
        assert (await upstream.send(FIRST)).body == (await echo(FIRST)).body
        assert not waiter.future.done()
        await upstream.aclose()


async def test_abandoning_an_answered_call_does_not_affect_the_next_one() -> None:
    async with HandlerServer(echo) as server:
        upstream = await opened(server.url)
        first, second = ReplyWaiter(), ReplyWaiter()
        sending = upstream.begin(FIRST, first)
        assert sending is not None
        await first.future
        assert upstream.begin(SECOND, second) is sending, "the same connection"
        sending.abandon(first)
        assert (await second.future).status == 200
        await upstream.aclose()


async def test_a_connection_that_closes_under_a_call_leaves_it_unanswered() -> None:
    script = (ReadRequest(), Say(plain_reply(b"{}")), ReadRequest(), Close())
    async with HostileServer(script, (ReadRequest(), Say(plain_reply(b"[]")))) as server:
        upstream = await opened(server.url)
        waiter = ReplyWaiter()
        assert upstream.begin(SECOND, waiter) is not None
        with pytest.raises(StaleConnection):
            await waiter.future
        assert (await upstream.send_on_new_connection(SECOND)).body == b"[]"
        await upstream.aclose()


async def test_a_call_that_may_not_be_sent_is_refused_and_harms_nothing() -> None:
    async with HandlerServer(echo) as server:
        upstream = await opened(server.url)
        waiter = ReplyWaiter()
        with pytest.raises(Refused):
            upstream.begin(Call(path="/v1/x", body=b"", headers={"host": "evil"}), waiter)
        assert upstream.pool.idle_count == 1
        assert not waiter.future.done()
        await upstream.aclose()


async def test_closing_the_upstream_ends_a_call_that_has_begun() -> None:
    async def never(call: Call) -> Reply:
        if call.body == SECOND.body:
            await asyncio.get_running_loop().create_future()
        return await echo(call)

    async with HandlerServer(never) as server:
        upstream = await opened(server.url)
        waiter = ReplyWaiter()
        upstream.begin(SECOND, waiter)
        await upstream.aclose()
        with pytest.raises(UpstreamFault):
            await waiter.future
