"""How many connections there are, who gets the next one, and what closing does to them."""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from itertools import pairwise

import pytest

from testkit.servers.hostile import (
    Await,
    Close,
    HostileServer,
    ReadRequest,
    Say,
    Script,
    Tell,
    answers,
    plain_reply,
)
from tidegate.domain.errors import ConnectFailed, ReplyBroken, TimedOut
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.upstreams.base import Call
from tidegate.upstreams.http1.pool import Pool
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Limits, Timeouts

Connect = Callable[[HttpSettings], HttpUpstream]

READ = ReadRequest()
CALL = Call(path="/v1/x", body=b"{}")
PATIENT = Timeouts(total_seconds=20.0)


async def reached(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds; each turn of the loop looks again."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- counters have no event to wait for
            await asyncio.sleep(0)


def _later(pool: Pool, than: float) -> bool:
    return pool.now() > than


async def test_the_latest_connection_is_used_first(connect: Connect) -> None:
    both = asyncio.Event()
    older: Script = (READ, Await(both), Say(plain_reply(b"older")), *answers(plain_reply(b"again")))
    newer: Script = (READ, Tell(both), Say(plain_reply(b"newer")), *answers(plain_reply(b"again")))
    async with HostileServer(older, newer) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        await asyncio.gather(upstream.send(CALL), upstream.send(CALL))
        assert (upstream.pool.idle_count, upstream.pool.open_count) == (2, 2)
        latest = upstream.pool.ready(upstream.pool.now())
        assert latest is not None
        upstream.pool.released(latest)
        assert upstream.pool.ready(upstream.pool.now()) is latest
        upstream.pool.released(latest)


async def test_calls_beyond_the_bound_wait_in_their_order(connect: Connect) -> None:
    replies = [plain_reply(b"%d" % number) for number in range(20)]
    async with HostileServer(answers(*replies), answers(*replies)) as server:
        limits = Limits(connections_max=1)
        upstream = connect(HttpSettings(url=server.url, limits=limits, timeouts=PATIENT))
        got = await asyncio.gather(*(upstream.send(CALL) for _ in range(20)))
        assert [reply.body for reply in got] == [b"%d" % number for number in range(20)]
        assert len(server.received) == 1


@pytest.mark.parametrize("connections_max", [1, 2, 5])
async def test_never_more_connections_than_allowed(connect: Connect, connections_max: int) -> None:
    # Every other reply closes its connection, so that places become free in both ways.
    replies = [plain_reply(b"a"), plain_reply(b"b", b"connection: close")]
    async with HostileServer(answers(*replies)) as server:
        limits = Limits(connections_max=connections_max)
        upstream = connect(HttpSettings(url=server.url, limits=limits, timeouts=PATIENT))
        most = 0

        async def one() -> None:
            nonlocal most
            await upstream.send(CALL)
            most = max(most, upstream.pool.open_count)

        await asyncio.gather(*(one() for _ in range(40)))
        assert most <= connections_max
        assert 20 <= len(server.received) < 20 + connections_max


async def test_waiting_for_a_connection_ends_at_the_total_limit(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        limits = Limits(connections_max=1)
        upstream = connect(
            HttpSettings(url=server.url, limits=limits, timeouts=Timeouts(total_seconds=0.1))
        )
        held = await upstream.pool.acquire(upstream.pool.now() + 20)
        fault = await expect_fault(upstream, CALL, TimedOut)
        assert isinstance(fault, TimedOut)
        assert fault.phase == "total"
        assert "connections_max" in str(fault)
        assert (upstream.pool.queue_length, upstream.pool.open_count) == (0, 1)
        assert held.is_open


async def test_a_fresh_connection_takes_the_place_of_the_oldest_idle_one(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        pool = connect(HttpSettings(url=server.url, limits=Limits(connections_max=2))).pool
        due = pool.now() + 20
        one, two = await pool.acquire(due), await pool.acquire(due)
        pool.released(one)
        pool.released(two)
        three = await pool.acquire(due, fresh=True)
        assert three not in {one, two}
        assert (one.is_open, two.is_open, pool.open_count) == (False, True, 2)


async def test_a_cancelled_wait_hands_its_turn_on(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        pool = connect(HttpSettings(url=server.url, limits=Limits(connections_max=1))).pool
        due = asyncio.get_running_loop().time() + 20
        connection = await pool.acquire(due)
        async with asyncio.TaskGroup() as group:
            second = group.create_task(pool.acquire(due), name="waits and is cancelled")
            third = group.create_task(pool.acquire(due), name="waits behind")
            await reached(lambda: pool.queue_length == 2)
            # The second is woken and cancelled before it can run.
            pool.released(connection)
            second.cancel()
        assert second.cancelled()
        assert third.result() is connection


async def test_waiting_calls_are_served_in_order(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        pool = connect(HttpSettings(url=server.url, limits=Limits(connections_max=1))).pool
        due = asyncio.get_running_loop().time() + 20
        connection = await pool.acquire(due)
        order: list[str] = []

        async def get(name: str) -> None:
            got = await pool.acquire(due)
            order.append(name)
            pool.released(got)

        async with asyncio.TaskGroup() as group:
            group.create_task(get("first"), name="waits")
            await reached(lambda: pool.queue_length == 1)
            # This one will run before the first is woken, and find the connection idle.
            group.create_task(get("second"), name="comes later")
            pool.released(connection)
            assert pool.ready(pool.now()) is None
        assert order == ["first", "second"]


async def test_an_idle_connection_is_not_used_past_its_time(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        pool = connect(HttpSettings(url=server.url, timeouts=PATIENT)).pool
        connection = await pool.acquire(pool.now() + 20)
        pool.released(connection)
        # The timer that closes it may come later than the call that would have taken it.
        connection.due = pool.now() - 0.001
        assert pool.ready(pool.now()) is None
        assert not connection.is_open


async def test_a_connection_takes_no_call_past_its_age(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        pool = connect(HttpSettings(url=server.url, timeouts=PATIENT)).pool
        connection = await pool.acquire(pool.now() + 20)
        pool.released(connection)
        now = pool.now()
        connection.retires_at = now + 0.001
        assert pool.ready(now) is connection
        pool.released(connection)
        connection.retires_at = now
        assert pool.ready(now) is None
        assert not connection.is_open


async def test_ages_of_connections_lie_apart_and_within_the_bound(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        timeouts = Timeouts(connection_age_seconds=1_000.0)
        pool = connect(HttpSettings(url=server.url, timeouts=timeouts)).pool
        before = pool.now()
        due = before + 20
        drain = sorted([(await pool.acquire(due)).retires_at for _ in range(20)])
        assert before + 750 <= drain[0]
        assert drain[-1] <= pool.now() + 1_000
        assert all(later - sooner > 1 for sooner, later in pairwise(drain))


async def test_an_old_connection_is_replaced_between_two_calls(connect: Connect) -> None:
    async with HostileServer(answers(*[plain_reply(b"a")] * 3)) as server:
        settings = HttpSettings(url=server.url, timeouts=Timeouts(connection_age_seconds=1e-6))
        upstream = connect(settings)
        for number in range(3):
            assert (await upstream.send(CALL)).body == b"a"
            assert len(server.received) == number + 1
            # The clock of a loop may have a resolution of milliseconds.
            sent = upstream.pool.now()
            await reached(partial(_later, upstream.pool, sent))


async def test_a_call_that_arrives_as_another_is_woken_is_not_forgotten(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        pool = connect(HttpSettings(url=server.url, limits=Limits(connections_max=2))).pool
        due = asyncio.get_running_loop().time() + 20
        one, two = await pool.acquire(due), await pool.acquire(due)
        async with asyncio.TaskGroup() as group:
            third = group.create_task(pool.acquire(due), name="waits")
            await reached(lambda: pool.queue_length == 1)
            fourth = group.create_task(pool.acquire(due), name="comes as the third is woken")
            # Nobody else waits yet: the wake-up for the second of these finds no one.
            pool.released(one)
            pool.released(two)
        assert {third.result(), fourth.result()} == {one, two}


@pytest.mark.parametrize("idle_max", [0, 1, 3])
async def test_idle_connections_are_bounded(connect: Connect, idle_max: int) -> None:
    gate = asyncio.Event()
    async with HostileServer((READ, Await(gate), Say(plain_reply(b"a")))) as server:
        limits = Limits(idle_connections_max=idle_max)
        upstream = connect(HttpSettings(url=server.url, limits=limits, timeouts=PATIENT))
        async with asyncio.TaskGroup() as group:
            for number in range(4):
                group.create_task(upstream.send(CALL), name=f"call {number}")
            await reached(lambda: len(server.received) == 4)
            gate.set()
        assert upstream.pool.idle_count == idle_max
        await reached(lambda: upstream.pool.open_count == idle_max)


async def test_a_replay_finds_a_place_where_all_are_taken(connect: Connect) -> None:
    gate = asyncio.Event()
    old: Script = (READ, Await(gate), Say(plain_reply(b"a")), READ, Close())
    async with HostileServer(old, old, answers(plain_reply(b"fresh"))) as server:
        limits = Limits(connections_max=2)
        upstream = connect(HttpSettings(url=server.url, limits=limits, timeouts=PATIENT))
        async with asyncio.TaskGroup() as group:
            for number in range(2):
                group.create_task(upstream.send(CALL), name=f"call {number}")
            await reached(lambda: len(server.received) == 2)
            gate.set()
        assert upstream.pool.idle_count == 2
        assert (await upstream.send(CALL)).body == b"fresh"


# Closing


async def test_closing_ends_calls_under_way_and_calls_that_wait(connect: Connect) -> None:
    async with HostileServer((READ,)) as server:
        limits = Limits(connections_max=1)
        upstream = connect(HttpSettings(url=server.url, limits=limits, timeouts=PATIENT))
        async with asyncio.TaskGroup() as group:
            sent = group.create_task(expect_fault(upstream, CALL, ReplyBroken), name="sent")
            await reached(lambda: len(server.received) == 1)
            waits = group.create_task(expect_fault(upstream, CALL, ConnectFailed), name="waits")
            await reached(lambda: upstream.pool.queue_length == 1)
            await asyncio.gather(upstream.aclose(), upstream.aclose())
        assert "closed" in str(sent.result())
        assert "closed" in str(waits.result())
        await server.closed[0].wait()


async def test_a_connection_that_opens_while_closing_is_closed(connect: Connect) -> None:
    async with HostileServer(answers(plain_reply(b"a"))) as server:
        upstream = connect(HttpSettings(url=server.url, timeouts=PATIENT))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(expect_fault(upstream, CALL, ConnectFailed), name="opening")
            await asyncio.sleep(0)
            await upstream.aclose()
        assert "closed" in str(task.result())
        await reached(lambda: upstream.pool.open_count == 0)


# Connecting


async def test_a_name_that_is_none_says_so(connect: Connect) -> None:
    for host in ["tidegate.invalid", f"{'a' * 64}.invalid"]:
        upstream = connect(HttpSettings(url=f"http://{host}:9", timeouts=PATIENT))
        fault = await expect_fault(upstream, CALL, ConnectFailed)
        assert "check the URL" in str(fault)


async def test_connecting_ends_at_its_limit(connect: Connect) -> None:
    # A listener whose queue is full leaves the next connection unanswered.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        with socket.socket() as first, socket.socket() as second:
            for sock in (first, second):
                sock.setblocking(False)
                sock.connect_ex(("127.0.0.1", port))
            for limits, phase in [
                (Timeouts(connect_seconds=0.1), "connect"),
                (Timeouts(total_seconds=0.1), "total"),
            ]:
                upstream = connect(HttpSettings(url=f"http://127.0.0.1:{port}", timeouts=limits))
                fault = await expect_fault(upstream, CALL, TimedOut)
                assert isinstance(fault, TimedOut)
                assert fault.phase == phase
                assert upstream.pool.open_count == 0
