"""Which address of a host is tried first, and when a name is resolved again: in virtual time."""

import asyncio
import socket
from collections.abc import Coroutine, Sequence

import pytest
from hypothesis import given, strategies as st

from tidegate.testing.loop import run_virtual
from tidegate.upstreams.transport.dns import (
    ADDRESSES_MAX,
    DEPRIORITIZED_SECONDS,
    STALE_SECONDS_MAX,
    Address,
    AddressCache,
    connection_order,
)

FRESH = 30.0


def v4(number: int) -> Address:
    return Address(socket.AF_INET, (f"10.0.{number // 256}.{number % 256}", 80))


def v6(number: int) -> Address:
    return Address(socket.AF_INET6, (f"fd00::{number:x}", 80, 0, 0))


class Names:
    """A name server: gives the configured answers, and counts."""

    def __init__(self, *found: Address) -> None:
        self.found: Sequence[Address] | OSError = found
        self.asked = 0
        self.seconds = 0.0

    async def __call__(self, host: str, port: int) -> Sequence[Address]:
        assert (host, port) == ("models", 80)
        self.asked += 1
        await asyncio.sleep(self.seconds)
        if isinstance(self.found, OSError):
            raise self.found
        return self.found

    def addresses(self) -> AddressCache:
        return AddressCache("models", 80, fresh_seconds=FRESH, resolve=self)


def virtually(test: Coroutine[None, None, None]) -> None:
    run_virtual(test)


def test_families_take_turns_beginning_with_the_preferred_one() -> None:
    found = [v6(1), v6(2), v6(3), v4(1), v4(2)]
    assert list(connection_order(found, 0)) == [v6(1), v4(1), v6(2), v4(2), v6(3)]
    assert list(connection_order([v4(1), v6(1)], 0)) == [v4(1), v6(1)]


def test_each_turn_begins_with_another_address() -> None:
    found = [v4(1), v4(2), v4(3)]
    assert [connection_order(found, turn)[0] for turn in range(6)] == [*found, *found]


def test_shunned_addresses_come_last() -> None:
    found = [v6(1), v6(2), v4(1)]
    assert list(connection_order(found, 0, {v6(1)})) == [v4(1), v6(2), v6(1)]
    assert list(connection_order(found, 0, set(found))) == [v6(1), v4(1), v6(2)]


@given(
    numbers=st.lists(st.integers(0, 300), unique=True, min_size=1, max_size=20),
    sixes=st.integers(0, 20),
    turn=st.integers(0, 1000),
    deprioritized=st.sets(st.integers(0, 20)),
)
def test_every_address_is_tried_exactly_once(
    numbers: list[int], sixes: int, turn: int, deprioritized: set[int]
) -> None:
    found = [v6(it) if place < sixes else v4(it) for place, it in enumerate(numbers)]
    bad = {found[place] for place in deprioritized if place < len(found)}
    order = connection_order(found, turn, bad)
    assert sorted(order) == sorted(found)
    assert set(order[len(found) - len(bad) :]) == bad


def test_an_answer_serves_until_its_time_is_over() -> None:
    async def test() -> None:
        names = Names(v4(1))
        addresses = names.addresses()
        assert list(await addresses.take()) == [v4(1)]
        names.found = [v4(2)]
        await asyncio.sleep(FRESH - 0.001)
        assert list(await addresses.take()) == [v4(1)]
        await asyncio.sleep(0.001)
        assert list(await addresses.take()) == [v4(2)]
        assert names.asked == 2

    virtually(test())


def test_many_connections_at_once_ask_once() -> None:
    async def test() -> None:
        names = Names(v4(1), v4(2))
        names.seconds = 1.0
        addresses = names.addresses()
        orders = await asyncio.gather(*(addresses.take() for _ in range(10)))
        assert names.asked == 1
        assert [order[0] for order in orders] == [v4(1), v4(2)] * 5

    virtually(test())


def test_asking_in_vain_leaves_the_turn_to_the_next() -> None:
    async def test() -> None:
        names = Names(v4(1))
        names.seconds = 1.0
        addresses = names.addresses()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(addresses.take(), name="asks and is cancelled")
            second = group.create_task(addresses.take(), name="waits for the answer")
            await asyncio.sleep(0.5)
            first.cancel()
        assert list(second.result()) == [v4(1)]
        assert names.asked == 2

    virtually(test())


def test_a_name_server_that_is_away_stops_nobody_for_a_while() -> None:
    async def test() -> None:
        names = Names(v4(1))
        addresses = names.addresses()
        await addresses.take()
        names.found = socket.gaierror(socket.EAI_AGAIN, "try again")
        await asyncio.sleep(STALE_SECONDS_MAX - 0.001)
        assert list(await addresses.take()) == [v4(1)]
        await asyncio.sleep(0.001)
        with pytest.raises(socket.gaierror):
            await addresses.take()
        names.found = [v4(2)]
        assert list(await addresses.take()) == [v4(2)]

    virtually(test())


def test_a_name_without_addresses_is_none() -> None:
    async def test() -> None:
        with pytest.raises(socket.gaierror):
            await Names().addresses().take()

    virtually(test())


def test_if_no_address_answers_the_name_is_resolved_again() -> None:
    async def test() -> None:
        names = Names(v4(1))
        addresses = names.addresses()
        await addresses.take()
        names.found = [v4(2)]
        addresses.invalidate()
        assert list(await addresses.take()) == [v4(2)]

    virtually(test())


def test_an_address_is_shunned_for_its_time() -> None:
    async def test() -> None:
        names = Names(v6(1), v4(1))
        addresses = names.addresses()
        await addresses.take()
        addresses.deprioritize(v6(1))
        await asyncio.sleep(DEPRIORITIZED_SECONDS - 0.001)
        assert (await addresses.take())[0] == v4(1)
        await asyncio.sleep(0.001)
        assert (await addresses.take())[0] == v6(1)

    virtually(test())


def test_addresses_are_bounded_and_each_counts_once() -> None:
    async def test() -> None:
        names = Names(v4(0), v4(0), *(v4(number) for number in range(1, ADDRESSES_MAX + 1)))
        found = await names.addresses().take()
        assert sorted(found) == sorted(v4(number) for number in range(ADDRESSES_MAX))

    virtually(test())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_literal_address_is_not_resolved(host: str) -> None:
    async def never(host: str, port: int) -> Sequence[Address]:
        raise AssertionError(host)

    async def test() -> None:
        addresses = AddressCache(host, 80, fresh_seconds=FRESH, resolve=never)
        addresses.invalidate()
        assert [place.place[:2] for place in await addresses.take()] == [(host, 80)]

    virtually(test())
