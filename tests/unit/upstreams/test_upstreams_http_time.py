"""The HTTP upstream and time: limits, connections that just close, and calls that are cancelled."""

import asyncio
from collections.abc import Callable

import pytest

from testkit.servers.hostile import (
    Await,
    Close,
    HostileServer,
    ReadRequest,
    Reset,
    Say,
    Script,
    Tell,
    answers,
    plain_reply,
)
from tidegate.domain.errors import ReplyBroken, TimedOut, UpstreamFault
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.upstreams.base import Call
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Timeouts

Connect = Callable[[HttpSettings], HttpUpstream]

READ = ReadRequest()
CALL = Call(path="/v1/x", body=b"{}")
# A test that waits for what never comes shall fail within seconds.
PATIENT = Timeouts(total_seconds=20.0)
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
INTERIM = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"


async def test_silence_ends_at_the_first_byte_limit(connect: Connect) -> None:
    async with HostileServer((READ,), answers(plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=Timeouts(first_byte_seconds=0.05)))
        fault = await expect_fault(upstream, CALL, UpstreamFault)
        assert isinstance(fault, TimedOut)
        assert fault.phase == "first_byte"
        await server.closed[0].wait()


@pytest.mark.parametrize("begun", [b"HTTP", plain_reply(b"ab")[:-1], CHUNKED + b"5\r\na", INTERIM])
async def test_a_pause_in_the_reply_ends_at_the_idle_limit(connect: Connect, begun: bytes) -> None:
    async with HostileServer((READ, Say(begun))) as server:
        fault = await expect_fault(
            connect(HttpSettings(url=server.url, timeouts=Timeouts(idle_seconds=0.05))),
            CALL,
            UpstreamFault,
        )
        assert isinstance(fault, TimedOut)
        assert fault.phase == "idle"
        await server.closed[0].wait()


async def test_a_reply_that_trickles_ends_at_the_total_limit(connect: Connect) -> None:
    slow = Say(plain_reply(b"b" * 4000), 1, 0.01)
    async with HostileServer((READ, slow)) as server:
        fault = await expect_fault(
            connect(
                HttpSettings(
                    url=server.url, timeouts=Timeouts(idle_seconds=30.0, total_seconds=0.3)
                )
            ),
            CALL,
            UpstreamFault,
        )
        assert isinstance(fault, TimedOut)
        assert fault.phase == "total"
        await server.closed[0].wait()


async def test_silence_longer_than_the_total_limit_is_reported_as_such(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        fault = await expect_fault(
            connect(
                HttpSettings(
                    url=server.url, timeouts=Timeouts(first_byte_seconds=30.0, total_seconds=0.05)
                )
            ),
            CALL,
            UpstreamFault,
        )
        assert isinstance(fault, TimedOut)
        assert fault.phase == "total"


async def test_a_reply_that_pauses_within_the_limits_is_whole(connect: Connect) -> None:
    async with HostileServer((READ, Say(plain_reply(b"b" * 20), 10, 0.02))) as server:
        upstream = connect(
            HttpSettings(
                url=server.url, timeouts=Timeouts(first_byte_seconds=5.0, idle_seconds=5.0)
            )
        )
        assert (await upstream.send(CALL)).body == b"b" * 20


async def test_an_idle_connection_is_closed_when_its_time_is_over(connect: Connect) -> None:
    async with HostileServer(answers(plain_reply(b"a")), answers(plain_reply(b"b"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=Timeouts(keep_alive_seconds=0.05)))
        assert (await upstream.send(CALL)).body == b"a"
        await server.closed[0].wait()
        assert upstream.pool.open_count == 0
        assert (await upstream.send(CALL)).body == b"b"


# The race with a server that closes an idle connection


@pytest.mark.parametrize("end", [Close(), Reset()])
async def test_a_reused_connection_that_just_closes_is_replaced_once(
    connect: Connect, end: Close | Reset
) -> None:
    first: Script = (*answers(plain_reply(b"a")), READ, end)
    async with HostileServer(first, answers(plain_reply(b"b"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        assert (await upstream.send(CALL)).body == b"a"
        assert (await upstream.send(CALL)).body == b"b"
        assert [seen.count(b"POST") for seen in server.received] == [2, 1]


async def test_a_replay_is_not_replayed(connect: Connect) -> None:
    first: Script = (*answers(plain_reply(b"a")), READ, Close())
    async with HostileServer(first, (READ, Close())) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        await upstream.send(CALL)
        fault = await expect_fault(upstream, CALL, UpstreamFault)
        assert type(fault) is ReplyBroken
        assert [seen.count(b"POST") for seen in server.received] == [2, 1]


async def test_a_replay_uses_no_connection_that_may_be_as_old(connect: Connect) -> None:
    both, go_on = asyncio.Event(), asyncio.Event()
    old: Script = (READ, Tell(both), Await(go_on), Say(plain_reply(b"a")), READ, Close())
    async with HostileServer(
        (READ, Await(both), Say(plain_reply(b"a")), READ, Close()),
        old,
        answers(plain_reply(b"fresh")),
    ) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        go_on.set()
        await asyncio.gather(upstream.send(CALL), upstream.send(CALL))
        assert upstream.pool.idle_count == 2
        assert (await upstream.send(CALL)).body == b"fresh"
        assert len(server.received) == 3


async def test_nothing_is_replayed_once_a_byte_of_the_reply_came(connect: Connect) -> None:
    first: Script = (*answers(plain_reply(b"a")), READ, Say(b"H"), Close())
    async with HostileServer(first, answers(plain_reply(b"b"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        await upstream.send(CALL)
        fault = await expect_fault(upstream, CALL, UpstreamFault)
        assert "in the middle" in str(fault)
        assert len(server.received) == 1


async def test_a_time_out_on_a_reused_connection_is_not_replayed(connect: Connect) -> None:
    async with HostileServer(
        (*answers(plain_reply(b"a")), READ), answers(plain_reply(b"b"))
    ) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=Timeouts(first_byte_seconds=0.2)))
        await upstream.send(CALL)
        assert isinstance(await expect_fault(upstream, CALL, UpstreamFault), TimedOut)
        assert len(server.received) == 1


async def test_a_server_that_worked_on_the_call_before_it_closed_is_not_asked_again(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate.upstreams.http1.connection.REPLAY_SECONDS_MAX", 0.0)
    working, go_on = asyncio.Event(), asyncio.Event()
    first: Script = (*answers(plain_reply(b"a")), READ, Tell(working), Await(go_on), Close())
    async with HostileServer(first, answers(plain_reply(b"b"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        await upstream.send(CALL)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                expect_fault(upstream, CALL, UpstreamFault), name="a call that is worked on"
            )
            await working.wait()
            asyncio.get_running_loop().call_later(0.02, go_on.set)
        assert type(task.result()) is ReplyBroken
        assert len(server.received) == 1


# Cancelling


@pytest.mark.parametrize(
    "begun", [b"", b"HTTP/1.1 2", plain_reply(b"late")[:-2], CHUNKED + b"4\r\nla"]
)
async def test_a_cancelled_call_closes_its_connection(connect: Connect, begun: bytes) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()
    first: Script = (READ, Say(begun), Tell(reached), Await(go_on), Say(plain_reply(b"late")))
    async with HostileServer(first, answers(plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(upstream.send(CALL), name="a call to cancel")
            await reached.wait()
            task.cancel()
        assert upstream.pool.idle_count == 0
        go_on.set()
        assert (await upstream.send(CALL)).body == b"next"
        await server.closed[0].wait()


async def test_a_call_that_is_cancelled_in_its_replay_closes_that_connection_too(
    connect: Connect,
) -> None:
    replayed = asyncio.Event()
    first: Script = (*answers(plain_reply(b"a")), READ, Close())
    second: Script = (READ, Tell(replayed))
    async with HostileServer(first, second, answers(plain_reply(b"next"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        await upstream.send(CALL)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(upstream.send(CALL), name="a call to cancel")
            await replayed.wait()
            task.cancel()
        await server.closed[1].wait()
        assert (await upstream.send(CALL)).body == b"next"


# How long the server says that it keeps a connection


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (b"timeout=3", 2.0),
        (b"timeout=2, max=100", 1.0),
        (b"max=5, Timeout=3", 2.0),
        (b'timeout = "3"', 2.0),
        (b"timeout=5", 4.0),
        (b"timeout=999999999", 4.0),
        (b"timeout=9999999999", 4.0),
        (b"timeout=-3", 4.0),
        (b"mytimeout=2", 4.0),
        (b"", 4.0),
    ],
)
async def test_a_shorter_time_of_the_server_is_believed(
    connect: Connect, said: bytes, seconds: float
) -> None:
    async with HostileServer(answers(plain_reply(b"a", b"Keep-Alive: " + said))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        before = upstream.pool.now()
        await upstream.send(CALL)
        after = upstream.pool.now()
        connection = upstream.pool.ready(after)
        assert connection is not None
        assert before + seconds <= connection.due <= after + seconds
        connection.close()


@pytest.mark.parametrize("said", [b"timeout=1", b"timeout=0"])
async def test_a_connection_that_the_server_keeps_no_time_is_not_used_again(
    connect: Connect, said: bytes
) -> None:
    reply = plain_reply(b"a", b"keep-alive: " + said)
    async with HostileServer(answers(reply, reply)) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        for _ in range(2):
            await upstream.send(CALL)
        assert len(server.received) == 2
