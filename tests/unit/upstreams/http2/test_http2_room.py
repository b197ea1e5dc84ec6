"""How many calls and connections of HTTP/2 there are at once, and who waits for room."""

import asyncio
from collections.abc import Callable

import pytest
from h2.settings import SettingCodes

from tidegate.domain.errors import ConnectFailed, TimedOut
from tidegate.testing.contract.upstreams import echo, expect_fault
from tidegate.testing.handler_server import HandlerServer
from tidegate.testing.http2_server import Http2Server
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.http2.upstream import Http2Upstream
from tidegate.upstreams.settings import HttpProtocol, HttpSettings, Limits, Timeouts

Connect = Callable[[HttpSettings], Http2Upstream]

CALL = Call(path="/v1/x", body=b"{}")
PATIENT = Timeouts(total_seconds=20.0)


def speaking(url: str, timeouts: Timeouts = PATIENT, **limits: int) -> HttpSettings:
    return HttpSettings(
        url=url, timeouts=timeouts, limits=Limits(**limits), protocol=HttpProtocol.HTTP2
    )


async def never(_: Call) -> Reply:
    raise TimedOut("Nothing.", phase="first_byte")


@pytest.mark.parametrize(("ours", "theirs"), [(2, None), (9, 2)])
async def test_calls_beyond_the_bound_of_a_connection_open_another(
    connect: Connect, ours: int, theirs: int | None
) -> None:
    everyone = asyncio.Event()
    arrived = 0

    async def handler(call: Call) -> Reply:
        nonlocal arrived
        arrived += 1
        if arrived == 5:
            everyone.set()
        await everyone.wait()
        return await echo(call)

    settings = {} if theirs is None else {SettingCodes.MAX_CONCURRENT_STREAMS: theirs}
    async with Http2Server(handler, settings=settings) as server:
        upstream = connect(speaking(server.url, streams_max=ours))
        async with asyncio.timeout(20):
            await asyncio.gather(*(upstream.send(CALL) for _ in range(5)))
        assert server.connections_seen == 3


async def test_calls_beyond_every_bound_wait_for_room(connect: Connect) -> None:
    under_way = most = 0

    async def handler(call: Call) -> Reply:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        return await echo(call)

    async with Http2Server(handler) as server:
        upstream = connect(speaking(server.url, streams_max=2, connections_max=2))
        bodies = [b"%d" % number for number in range(60)]
        replies = await asyncio.gather(
            *(upstream.send(Call(path="/v1/x", body=body)) for body in bodies)
        )
        assert [reply.body for reply in replies] == bodies
        assert most <= 4
        assert server.connections_seen == 2


async def test_waiting_for_room_ends_at_the_total_limit(connect: Connect) -> None:
    async with Http2Server(never) as server:
        upstream = connect(
            speaking(server.url, Timeouts(total_seconds=0.2), streams_max=1, connections_max=1)
        )
        faults = await asyncio.gather(*(expect_fault(upstream, CALL, TimedOut) for _ in range(3)))
        # The first one's room is free at the very moment at which the limit of the next ends.
        assert sum("streams_max" in str(fault) for fault in faults) in {1, 2}
        assert server.connections_seen == 1


async def test_a_server_without_room_for_any_call_is_told(connect: Connect) -> None:
    async with Http2Server(echo, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 0}) as server:
        fault = await expect_fault(connect(speaking(server.url)), CALL, ConnectFailed)
        assert "takes no calls" in str(fault)


async def test_many_calls_fail_with_one_attempt_to_connect(connect: Connect) -> None:
    async with HandlerServer(echo) as server:
        upstream = connect(speaking(server.url))
        async with asyncio.timeout(20):
            faults = await asyncio.gather(
                *(expect_fault(upstream, CALL, ConnectFailed) for _ in range(20))
            )
        assert len({str(fault) for fault in faults}) == 1
        assert server.connections_seen <= 2


@pytest.mark.parametrize("window", [1, 10, 70_000])
async def test_bodies_go_as_fast_as_the_server_takes_them(connect: Connect, window: int) -> None:
    body = bytes(range(256)) * 4
    async with Http2Server(echo, settings={SettingCodes.INITIAL_WINDOW_SIZE: window}) as server:
        upstream = connect(speaking(server.url))
        async with asyncio.timeout(20):
            replies = await asyncio.gather(
                *(upstream.send(Call(path="/v1/x", body=body)) for _ in range(3))
            )
        assert [reply.body for reply in replies] == [body] * 3
