"""Connecting where some addresses are dead: the first that answers serves, and nothing is left."""

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, closing

import pytest

from testkit.servers.hostile import HostileServer, answers, plain_reply
from tidegate.domain.errors import ConnectFailed
from tidegate.testing.contract.upstreams import expect_fault
from tidegate.upstreams.base import Call
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings, Timeouts
from tidegate.upstreams.transport import happy_eyeballs
from tidegate.upstreams.transport.dns import Address, AddressCache
from tidegate.upstreams.transport.happy_eyeballs import ATTEMPTS_AT_ONCE_MAX, dial

CALL = Call(path="/v1/x", body=b"{}")


def place(port: int) -> Address:
    return Address(socket.AF_INET, ("127.0.0.1", port))


def known(*found: Address) -> AddressCache:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        return found

    return AddressCache("models", 80, fresh_seconds=30.0, resolve=resolve)


@pytest.fixture
def silent() -> Iterator[Callable[[], Address]]:
    """Give a maker of addresses that answer nothing: their queue of connections is full."""
    with ExitStack() as stack:

        def make() -> Address:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            port = listener.getsockname()[1]
            for _ in range(2):
                waiting = stack.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(("127.0.0.1", port))
            return place(port)

        yield make


@pytest.fixture
def refusing() -> Iterator[Address]:
    """Give an address that refuses: its port is taken, and not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield place(taken.getsockname()[1])


@pytest.fixture
async def server() -> AsyncIterator[HostileServer]:
    async with HostileServer(answers(plain_reply(b"a"))) as server:
        yield server


async def reached(addresses: AddressCache) -> int:
    async with asyncio.timeout(20):
        with closing(await dial(addresses)) as sock:
            port: int = sock.getpeername()[1]
            return port


async def test_a_reachable_address_serves_if_the_first_is_silent(
    silent: Callable[[], Address], server: HostileServer
) -> None:
    dead = silent()
    addresses = known(dead, place(server.port))
    assert await reached(addresses) == server.port
    # The silent one is not waited for again.
    assert [await addresses.take() for _ in range(2)] == [[place(server.port), dead]] * 2


async def test_a_refusal_lets_the_next_begin_at_once(
    monkeypatch: pytest.MonkeyPatch, refusing: Address, server: HostileServer
) -> None:
    monkeypatch.setattr(happy_eyeballs, "ATTEMPT_DELAY_SECONDS", 1_000.0)
    assert await reached(known(refusing, place(server.port))) == server.port


async def test_an_address_in_good_time_is_alone(
    monkeypatch: pytest.MonkeyPatch, silent: Callable[[], Address], server: HostileServer
) -> None:
    monkeypatch.setattr(happy_eyeballs, "ATTEMPT_DELAY_SECONDS", 1_000.0)
    assert await reached(known(place(server.port), silent())) == server.port


async def test_many_silent_addresses_do_not_hide_a_reachable_one(
    monkeypatch: pytest.MonkeyPatch, silent: Callable[[], Address], server: HostileServer
) -> None:
    monkeypatch.setattr(happy_eyeballs, "ATTEMPT_DELAY_SECONDS", 0.01)
    dead = [silent() for _ in range(ATTEMPTS_AT_ONCE_MAX - 1)]
    assert await reached(known(*dead, place(server.port))) == server.port


async def test_attempts_at_once_are_bounded(
    monkeypatch: pytest.MonkeyPatch, silent: Callable[[], Address], server: HostileServer
) -> None:
    monkeypatch.setattr(happy_eyeballs, "ATTEMPT_DELAY_SECONDS", 0.001)
    dead = [silent() for _ in range(ATTEMPTS_AT_ONCE_MAX)]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.3):
            await dial(known(*dead, place(server.port)))
    assert server.received == []


async def test_if_all_addresses_refuse_the_refusal_is_reported(refusing: Address) -> None:
    with pytest.raises(ConnectionRefusedError):
        await dial(known(refusing))
    with pytest.raises(ConnectionRefusedError):
        await dial(known(Address(socket.AF_INET, ("255.255.255.255", 9)), refusing))


async def test_a_cancelled_race_leaves_no_socket(silent: Callable[[], Address]) -> None:
    # What is left open is a ResourceWarning, which fails the test.
    for turns in range(8):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(dial(known(silent(), silent())), name="cancelled")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()


async def test_cancelling_as_an_attempt_succeeds_leaves_no_socket(server: HostileServer) -> None:
    for turns in range(12):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(
                dial(known(place(server.port), place(server.port + 1))), name="cancelled"
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        if not task.cancelled():
            task.result().close()


async def test_where_two_attempts_succeed_at_once_one_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[socket.socket] = []
    both = asyncio.Event()

    async def connected(_: Address) -> socket.socket:
        made.append(socket.socket())
        sock = made[-1]
        if len(made) == 2:
            both.set()
        await both.wait()
        return sock

    monkeypatch.setattr(happy_eyeballs, "_connected", connected)
    monkeypatch.setattr(happy_eyeballs, "ATTEMPT_DELAY_SECONDS", 0.0)
    with closing(await dial(known(place(1), place(2)))) as sock:
        assert [it.fileno() >= 0 for it in made].count(True) == 1
        assert sock.fileno() >= 0


async def test_calls_go_to_every_address_of_a_name() -> None:
    script = answers(plain_reply(b"a", b"connection: close"))
    async with HostileServer(script) as one, HostileServer(script) as two:

        async def resolve(host: str, port: int) -> Sequence[Address]:
            return [place(one.port), place(two.port)]

        upstream = HttpUpstream(HttpSettings(url="http://models:80"), resolve=resolve)
        for _ in range(6):
            await upstream.send(CALL)
        assert (len(one.received), len(two.received)) == (3, 3)
        await upstream.aclose()


async def test_new_connections_follow_a_name_that_moved() -> None:
    script = answers(plain_reply(b"a", b"connection: close"))
    async with HostileServer(script) as old, HostileServer(script) as new:
        found = [place(old.port)]

        async def resolve(host: str, port: int) -> Sequence[Address]:
            return found

        timeouts = Timeouts(name_seconds=0.001)
        upstream = HttpUpstream(
            HttpSettings(url="http://models", timeouts=timeouts), resolve=resolve
        )
        await upstream.send(CALL)
        found[:] = [place(new.port)]
        await asyncio.sleep(0.002)
        await upstream.send(CALL)
        assert (len(old.received), len(new.received)) == (1, 1)
        await upstream.aclose()


async def test_a_name_that_leads_nowhere_says_so(refusing: Address) -> None:
    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [refusing, refusing]

    upstream = HttpUpstream(HttpSettings(url="http://models"), resolve=resolve)
    fault = await expect_fault(upstream, CALL, ConnectFailed)
    assert "models refuses connections" in str(fault)
    await upstream.aclose()
