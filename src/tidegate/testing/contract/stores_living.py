"""The contract of every ledger: who is alive. See `stores` for how to use it."""

# ruff: noqa: D102 -- these are tests: their names are sentences, their numbers plain

import asyncio

from tidegate.stores.base import Store
from tidegate.testing.contract.stores import LEASE, ManualClock


class LivingContract:
    """What `beat`, `leave` and `get_living` promise."""

    async def test_nobody_lives_at_first(self, store: Store) -> None:
        assert await store.get_living() == ()

    async def test_the_living_come_sorted_and_once_each(self, store: Store) -> None:
        for owner in ("cleo", "anna", "bert", "anna"):
            await store.beat(owner, lease_seconds=LEASE)
        assert await store.get_living() == ("anna", "bert", "cleo")

    async def test_a_beat_lasts_its_lease_and_no_longer(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.beat("anna", lease_seconds=LEASE)
        clock.turn(LEASE - 1)
        assert await store.get_living() == ("anna",)
        clock.turn(1)
        assert await store.get_living() == ()

    async def test_a_beat_counts_from_now(self, store: Store, clock: ManualClock) -> None:
        await store.beat("anna", lease_seconds=LEASE)
        await store.beat("bert", lease_seconds=LEASE)
        clock.turn(LEASE - 1)
        await store.beat("anna", lease_seconds=LEASE)
        clock.turn(LEASE - 1)
        assert await store.get_living() == ("anna",)

    async def test_the_dead_may_come_back(self, store: Store, clock: ManualClock) -> None:
        await store.beat("anna", lease_seconds=LEASE)
        clock.turn(LEASE)
        await store.beat("bert", lease_seconds=LEASE)
        await store.beat("anna", lease_seconds=LEASE)
        assert await store.get_living() == ("anna", "bert")

    async def test_who_leaves_is_not_counted(self, store: Store) -> None:
        await store.beat("anna", lease_seconds=LEASE)
        await store.beat("bert", lease_seconds=LEASE)
        for _ in range(2):
            await store.leave("anna")
        await store.leave("nobody")
        assert await store.get_living() == ("bert",)
        await store.beat("anna", lease_seconds=LEASE)
        assert await store.get_living() == ("anna", "bert")

    async def test_fifty_beats_at_once_all_count(self, store: Store) -> None:
        owners = [f"owner-{number:02}" for number in range(50)]
        await asyncio.gather(*(store.beat(owner, lease_seconds=LEASE) for owner in owners))
        assert await store.get_living() == tuple(owners)
