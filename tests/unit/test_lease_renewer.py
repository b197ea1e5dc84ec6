"""The thread of the lease renewer, with a real ledger and a loop of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from typing_extensions import override

from testkit.scenarios.scenario import fails, now
from tidegate.domain.claim import Claim, Unit
from tidegate.domain.errors import StorageBroken, StorageFull
from tidegate.processor.leases.renewer import (
    FULL_RETRY_SECONDS,
    TaskLeaseRenewer,
    ThreadLeaseRenewer,
)
from tidegate.processor.settings import Claims
from tidegate.processor.write_gate import HOLDERS_FIRST_SECONDS
from tidegate.stores.base import Store
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.memory import MemoryStore
from tidegate.stores.sqlite import SqliteStore
from tidegate.testing.contract.stores import ManualClock, claim_shard, list_offers, planned
from tidegate.testing.loop import LoopClock, in_virtual_time

QUICK = Claims(lease_seconds=0.18, poll_seconds=0.05)


def ignore(_: object) -> None:
    """Do nothing."""


class Watched(SqliteStore):
    """Reports each renewal to the main loop, and fails the first ones if asked to."""

    def __init__(self, path: Path, clock: ManualClock, told: Callable[[], None], fail: int) -> None:
        super().__init__(path, clock, ThreadExecutor())
        self._told = told
        self._fail = fail

    @override
    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Unit]:
        if self._fail:
            self._fail -= 1
            raise StorageFull("no room")
        lost = await super().renew(claims, lease_seconds=lease_seconds)
        self._told()
        return lost


class Bench:
    def __init__(self, store: Store, clock: ManualClock, path: Path) -> None:
        self.store = store
        self.clock = clock
        self.path = path
        self.renewed = asyncio.Event()
        self.threads: set[str] = set()

    @asynccontextmanager
    async def renewer(
        self,
        *,
        fail: int = 0,
        member: str | None = None,
        on_lost: Callable[[Claim], None] = ignore,
        on_full: Callable[[StorageFull], None] = ignore,
    ) -> AsyncIterator[ThreadLeaseRenewer]:
        loop = asyncio.get_running_loop()

        def told() -> None:
            self.threads.add(threading.current_thread().name)
            loop.call_soon_threadsafe(self.renewed.set)

        renewer = ThreadLeaseRenewer(
            QUICK,
            lambda: Watched(self.path, self.clock, told, fail),
            member=member,
            on_lost=on_lost,
            on_full=on_full,
        )
        renewer.mark_progress()
        async with asyncio.TaskGroup() as group:
            task = group.create_task(renewer.run(), name="renewer")
            try:
                yield renewer
            finally:
                task.cancel()


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    clock = ManualClock()
    path = tmp_path / "ledger.db"
    async with SqliteStore(path, clock, ThreadExecutor()) as store:
        await planned(store)
        yield Bench(store, clock, path)


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(20.0):
        await event.wait()


async def test_what_is_held_is_renewed_from_another_thread(bench: Bench) -> None:
    held = await claim_shard(bench.store)
    async with bench.renewer() as renewer:
        renewer.add([held.claim])
        bench.clock.turn(1_000.0)
        await until(bench.renewed)
    assert threading.current_thread().name not in bench.threads
    assert await list_offers(bench.store) == [], "the claim lives on"
    assert not bench.threads & {thread.name for thread in threading.enumerate()}


async def test_a_claim_that_another_took_is_reported_once(bench: Bench) -> None:
    held = await claim_shard(bench.store)
    bench.clock.turn(1_000.0)
    await claim_shard(bench.store, owner="bert")
    lost: list[Claim] = []
    told = asyncio.Event()

    def hear(claim: Claim) -> None:
        lost.append(claim)
        told.set()

    async with bench.renewer(on_lost=hear) as renewer:
        renewer.add([held.claim])
        await until(told)
        bench.renewed.clear()
        assert renewer._claims == {}
    assert lost == [held.claim]


async def test_a_loop_that_makes_no_progress_holds_nothing(bench: Bench) -> None:
    held = await claim_shard(bench.store)
    async with bench.renewer() as renewer:
        renewer.add([held.claim])
        now = asyncio.get_running_loop().time()
        renewer._progress_at = now - QUICK.stall_seconds
        assert not renewer._is_stalled(now)
        renewer._progress_at = now - QUICK.stall_seconds - 0.001
        assert renewer._is_stalled(now)


async def test_a_loop_that_makes_no_progress_is_not_counted(bench: Bench) -> None:
    async with bench.renewer(member="anna") as renewer:
        now = asyncio.get_running_loop().time()
        assert await renewer._renew_all(bench.store, now + QUICK.stall_seconds + 1.0) == []
        assert await bench.store.list_members() == ()
        assert await renewer._renew_all(bench.store, now) == []
        assert await bench.store.list_members() == ("anna",)


async def test_the_owner_is_counted_from_another_thread(bench: Bench) -> None:
    held = await claim_shard(bench.store)
    async with bench.renewer(member="anna") as renewer:
        renewer.add([held.claim])
        await until(bench.renewed)
        bench.renewed.clear()
        # Membership is renewed after the claims: the second renewal of claims follows it.
        await until(bench.renewed)
        assert await bench.store.list_members() == ("anna",)


async def test_a_full_disk_does_not_end_the_renewer(bench: Bench) -> None:
    held = await claim_shard(bench.store)
    said: list[str] = []
    async with bench.renewer(fail=2, on_full=lambda error: said.append(str(error))) as renewer:
        renewer.add([held.claim])
        await until(bench.renewed)
    assert said == ["no room"] * 2


@pytest.mark.parametrize("verb", ["renew", "renew_membership"])
@in_virtual_time
async def test_what_found_no_room_is_tried_again_soon(verb: str) -> None:
    store = MemoryStore(LoopClock(asyncio.get_running_loop()))
    await planned(store)
    heard: list[float] = []
    renewer = TaskLeaseRenewer(
        Claims(lease_seconds=15.0),
        lambda: store,
        member="anna",
        on_lost=ignore,
        on_full=lambda _: heard.append(now()),
    )
    renewer.add([(await claim_shard(store)).claim])
    renewer.mark_progress()
    fails(store, verb, StorageFull("no room"), until=8.0)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(renewer.run(), name="renewer")
        await asyncio.sleep(30.0)
        task.cancel()
    assert heard == [5.0 + FULL_RETRY_SECONDS * number for number in range(12)]
    assert 2 * FULL_RETRY_SECONDS < HOLDERS_FIRST_SECONDS, "holders come first"


async def test_a_broken_ledger_ends_the_renewer_with_its_error(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"not a ledger" * 1_000)
    renewer = ThreadLeaseRenewer(
        QUICK,
        lambda: SqliteStore(path, ManualClock(), ThreadExecutor()),
        member=None,
        on_lost=ignore,
        on_full=ignore,
    )
    with pytest.raises(StorageBroken, match="is damaged or no SQLite database"):
        await renewer.run()


async def test_a_renewer_that_dies_says_why() -> None:
    def broken() -> Store:
        raise ValueError("a bug")

    with pytest.raises(RuntimeError, match="has died") as caught:
        await ThreadLeaseRenewer(QUICK, broken, member=None, on_lost=ignore, on_full=ignore).run()
    assert isinstance(caught.value.__cause__, ValueError)
