"""When storage counts as full, and by what it counts as free again."""

import asyncio
import random

import pytest
from typing_extensions import override

from testkit.scenarios.scenario import fails, now
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.errors import ClaimLost, StorageFull
from tidegate.processor.observer import Observer
from tidegate.processor.wakeups import Wakeups
from tidegate.processor.write_gate import HOLDERS_FIRST_SECONDS, PROBE_SECONDS, WriteGate
from tidegate.stores.memory import MemoryStore
from tidegate.testing.loop import LoopClock, in_virtual_time

FULL = StorageFull("no room")


class RecordingObserver(Observer):
    """Records what is reported of the storage."""

    def __init__(self) -> None:
        self.said: list[str | None] = []

    @override
    def on_disk_full(self, reason: str | None) -> None:
        self.said.append(reason)


class Bench:
    """A storage on ports in memory, and writes that find no room for a while."""

    def __init__(self) -> None:
        self.store = MemoryStore(LoopClock(asyncio.get_running_loop()))
        self.blobs = MemoryBlobs(appends=True)
        self.told = RecordingObserver()
        wakeups = Wakeups()
        self.storage = WriteGate(self.store, self.blobs, self.told, wakeups, random.Random(0))
        self.pumped = 0
        wakeups.call_on_room(self._pump)

    def _pump(self) -> None:
        self.pumped += 1

    async def write(self, *, until: float, then: Exception | None = None) -> None:
        async def ask() -> None:
            if now() < until:
                raise FULL
            if then is not None:
                raise then

        await self.storage.retry_until_answered(ask)


@in_virtual_time
async def test_it_is_full_until_every_write_that_waits_has_found_room() -> None:
    bench = Bench()
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.write(until=5.0))
        group.create_task(bench.write(until=20.0))
        await asyncio.sleep(1.0)
        assert bench.storage.is_full
        await asyncio.sleep(10.0)
        await bench.storage.probe()
        assert bench.told.said == ["no room"], "the other write waits: a probe proves nothing"
    assert now() >= 20.0
    assert bench.told.said == ["no room", None]
    assert bench.pumped == 1


@pytest.mark.parametrize("then", [ClaimLost("gone"), None])
@in_virtual_time
async def test_a_write_that_is_given_up_is_made_good_by_a_probe(then: Exception | None) -> None:
    bench = Bench()
    if then is None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3.0):
                await bench.write(until=1_000.0)
    else:
        with pytest.raises(ClaimLost):
            await bench.write(until=3.0, then=then)
    assert bench.storage.is_full
    await bench.storage.probe()
    assert not bench.storage.is_full


@in_virtual_time
async def test_a_write_that_was_never_refused_leaves_no_doubt() -> None:
    bench = Bench()
    with pytest.raises(ClaimLost):
        await bench.write(until=0.0, then=ClaimLost("gone"))
    await bench.write(until=0.0)
    assert bench.told.said == []


@pytest.mark.parametrize("port", ["store", "blobs"])
@in_virtual_time
async def test_a_probe_asks_ledger_and_blobs_at_most_once_a_second(port: str) -> None:
    bench = Bench()
    asked: list[float] = []
    check = bench.store.check

    async def checking() -> None:
        asked.append(now())
        await check()

    bench.store.check = checking  # type: ignore[method-assign]  # that is what is counted
    fails(getattr(bench, port), "check", FULL, until=5.0)
    bench.storage.refused(FULL)
    bench.storage.refused(FULL)
    while bench.storage.is_full:
        await bench.storage.probe()
        await asyncio.sleep(PROBE_SECONDS / 4)
    assert 5.0 <= now() <= 5.0 + 2 * PROBE_SECONDS
    assert len(asked) <= now() / PROBE_SECONDS + 1
    assert bench.told.said == ["no room", None]


def pauses_claiming(bench: Bench) -> bool:
    """Ask by a call, as the answer changes meanwhile."""
    return bench.storage.pauses_claiming


@in_virtual_time
async def test_once_there_is_room_claims_are_left_alone_for_a_while() -> None:
    bench = Bench()
    assert not pauses_claiming(bench)
    await bench.write(until=5.0)
    freed_at = now()
    assert not bench.storage.is_full
    assert pauses_claiming(bench)
    await asyncio.sleep(HOLDERS_FIRST_SECONDS - 0.001)
    assert pauses_claiming(bench)
    await asyncio.sleep(freed_at + HOLDERS_FIRST_SECONDS - now())
    assert not pauses_claiming(bench)
