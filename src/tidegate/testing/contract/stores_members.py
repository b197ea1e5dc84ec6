"""The contract of every ledger: members. See `stores` for use."""

# ruff: noqa: D102 -- these are tests: their names are sentences, their numbers plain

import asyncio

from tidegate.stores.base import Store
from tidegate.testing.contract.stores import LEASE, ManualClock


class MembersContract:
    """The contract of `renew_membership`, `leave` and `list_members`."""

    async def test_there_are_no_members_at_first(self, store: Store) -> None:
        assert await store.list_members() == ()

    async def test_members_are_sorted_and_unique(self, store: Store) -> None:
        for owner in ("cleo", "anna", "bert", "anna"):
            await store.renew_membership(owner, lease_seconds=LEASE)
        assert await store.list_members() == ("anna", "bert", "cleo")

    async def test_a_membership_ends_with_its_lease(self, store: Store, clock: ManualClock) -> None:
        await store.renew_membership("anna", lease_seconds=LEASE)
        clock.turn(LEASE - 1)
        assert await store.list_members() == ("anna",)
        clock.turn(1)
        assert await store.list_members() == ()

    async def test_a_renewal_counts_from_now(self, store: Store, clock: ManualClock) -> None:
        await store.renew_membership("anna", lease_seconds=LEASE)
        await store.renew_membership("bert", lease_seconds=LEASE)
        clock.turn(LEASE - 1)
        await store.renew_membership("anna", lease_seconds=LEASE)
        clock.turn(LEASE - 1)
        assert await store.list_members() == ("anna",)

    async def test_an_expired_member_may_renew(self, store: Store, clock: ManualClock) -> None:
        await store.renew_membership("anna", lease_seconds=LEASE)
        clock.turn(LEASE)
        await store.renew_membership("bert", lease_seconds=LEASE)
        await store.renew_membership("anna", lease_seconds=LEASE)
        assert await store.list_members() == ("anna", "bert")

    async def test_leaving_ends_membership(self, store: Store) -> None:
        await store.renew_membership("anna", lease_seconds=LEASE)
        await store.renew_membership("bert", lease_seconds=LEASE)
        for _ in range(2):
            await store.leave("anna")
        await store.leave("nobody")
        assert await store.list_members() == ("bert",)
        await store.renew_membership("anna", lease_seconds=LEASE)
        assert await store.list_members() == ("anna", "bert")

    async def test_fifty_concurrent_renewals_all_count(self, store: Store) -> None:
        owners = [f"owner-{number:02}" for number in range(50)]
        await asyncio.gather(
            *(store.renew_membership(owner, lease_seconds=LEASE) for owner in owners)
        )
        assert await store.list_members() == tuple(owners)
