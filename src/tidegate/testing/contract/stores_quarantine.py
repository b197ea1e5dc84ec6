"""The contract of every ledger: crashes and poison lines (PROTOCOL 20). See `stores`."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

from tidegate.domain.errors import ClaimLost
from tidegate.domain.shard import Shard
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    LEASE,
    ManualClock,
    a_batch,
    a_commit,
    claim_planning,
    claim_shard,
    claim_shards,
    planned,
    refusal,
    result,
)
from tidegate.testing.contract.stores_writers import fence


async def only_shard(store: Store) -> Shard:
    """Return the one shard of the batch that `planned` makes."""
    (shard,) = await store.get_shards("batch_1")
    return shard


class CrashesContract:
    """How claims count the crashes of a shard."""

    async def test_a_takeover_by_another_owner_counts_a_crash(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        assert (await claim_shard(store, "anna")).shard.crashes == 0
        clock.turn(LEASE)
        first = (await claim_shard(store, "bert")).shard
        assert (first.crashes, first.is_quarantined) == (1, False)
        clock.turn(LEASE)
        second = (await claim_shard(store, "anna")).shard
        assert (second.crashes, second.is_quarantined) == (2, True)
        assert (await only_shard(store)).crashes == 2

    async def test_a_new_claim_by_the_same_owner_is_no_crash(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        for _ in range(3):
            assert (await claim_shard(store, "anna")).shard.crashes == 0
            clock.turn(LEASE)

    async def test_a_hand_back_is_no_crash_and_resets_no_count(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store, "anna")
        await store.hand_back([claimed.claim])
        claimed = await claim_shard(store, "bert")
        assert claimed.shard.crashes == 0
        clock.turn(LEASE)
        claimed = await claim_shard(store, "anna")
        await store.hand_back([claimed.claim])
        assert (await claim_shard(store, "cleo")).shard.crashes == 1

    async def test_a_renewed_claim_is_no_crash(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        claimed = await claim_shard(store, "anna")
        clock.turn(LEASE)
        assert await store.renew([claimed.claim], lease_seconds=LEASE) == []
        await store.hand_back([claimed.claim])
        assert (await claim_shard(store, "bert")).shard.crashes == 0

    async def test_crashes_of_a_planning_are_counted(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch("batch_1"))
        assert (await claim_planning(store, "anna")).crashes == 0
        clock.turn(LEASE)
        assert (await claim_planning(store, "anna")).crashes == 0
        clock.turn(LEASE)
        claimed = await claim_planning(store, "bert")
        assert claimed.crashes == 1
        await store.hand_back([claimed.claim])
        assert (await claim_planning(store, "cleo")).crashes == 1
        clock.turn(LEASE)
        assert (await claim_planning(store, "dora")).crashes == 2

    async def test_a_fenced_claim_is_one_crash_for_any_next_owner(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 1), ("m", 1), ("m", 1)])
        mine = await claim_shards(store, "anna", limit=2)
        await store.hand_back([mine[1].claim])
        await fence(store, clock)
        taken = await claim_shards(store, "bert", limit=2)
        assert [one.shard.crashes for one in taken] == [1, 0]
        assert [one.shard.epoch for one in taken] == [3, 2]

    async def test_each_shard_counts_its_own(self, store: Store, clock: ManualClock) -> None:
        await planned(store, shards=[("m", 1), ("m", 1)])
        await claim_shard(store, "anna")
        clock.turn(LEASE)
        taken = await claim_shards(store, "bert")
        assert [one.shard.crashes for one in taken] == [1, 0]
        assert [shard.crashes for shard in await store.get_shards("batch_1")] == [1, 0]


class SuspectContract:
    """The contract of `record_suspect` and `record_sandbox_death`."""

    async def test_the_next_owner_sees_the_suspect(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        claimed = await claim_shard(store, "anna")
        assert claimed.shard.suspect is None
        for _ in range(2):
            await store.record_suspect(claimed.claim, 2)
        clock.turn(LEASE)
        taken = await claim_shard(store, "bert")
        assert (taken.shard.suspect, taken.shard.deaths) == (2, {})
        await store.record_suspect(taken.claim, 0)
        assert (await only_shard(store)).suspect == 0

    async def test_a_death_is_counted_once(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        for deaths in (1, 2, 3):
            await store.record_suspect(claimed.claim, 1)
            for _ in range(3):
                assert await store.record_sandbox_death(claimed.claim, 1) == deaths
        await store.record_suspect(claimed.claim, 2)
        assert await store.record_sandbox_death(claimed.claim, 2) == 1
        shard = await only_shard(store)
        assert (shard.suspect, shard.deaths) == (None, {1: 3, 2: 1})

    async def test_a_death_of_an_unrecorded_line_is_not_counted(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        assert await store.record_sandbox_death(claimed.claim, 1) == 0
        await store.record_suspect(claimed.claim, 1)
        assert await store.record_sandbox_death(claimed.claim, 2) == 0
        shard = await only_shard(store)
        assert (shard.suspect, shard.deaths) == (1, {})

    async def test_deaths_outlive_commits_and_claims(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.record_suspect(claimed.claim, 1)
        await store.record_sandbox_death(claimed.claim, 1)
        await store.record_suspect(claimed.claim, 1)
        await store.commit(a_commit(result(claimed, [0])))
        clock.turn(LEASE)
        taken = await claim_shard(store, "bert")
        assert (taken.shard.suspect, taken.shard.deaths) == (1, {1: 1})
        assert await store.record_sandbox_death(taken.claim, 1) == 2

    async def test_a_replaced_holder_is_refused(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        old = await claim_shard(store, "anna")
        await store.record_suspect(old.claim, 1)
        clock.turn(LEASE)
        await claim_shard(store, "bert")
        await refusal(store.record_suspect(old.claim, 0), ClaimLost)
        await refusal(store.record_sandbox_death(old.claim, 1), ClaimLost)
        shard = await only_shard(store)
        assert (shard.suspect, shard.deaths) == (1, {})

    async def test_an_expired_holder_that_was_not_replaced_may_record(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        clock.turn(LEASE * 10)
        await store.record_suspect(claimed.claim, 0)
        assert await store.record_sandbox_death(claimed.claim, 0) == 1

    async def test_an_ended_shard_is_refused(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.record_suspect(claimed.claim, 0)
        await store.commit(a_commit(result(claimed, [0, 1, 2])))
        await refusal(store.record_suspect(claimed.claim, 0), ClaimLost)
        await refusal(store.record_sandbox_death(claimed.claim, 0), ClaimLost)

    async def test_an_unknown_batch_is_refused(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.commit(a_commit(result(claimed, [0, 1, 2])))
        planning = await store.claim_finalizing("anna", lease_seconds=LEASE)
        assert planning is not None
        await store.finish_batch(planning.claim, at=1.0)
        await store.drop_batches(["batch_1"])
        await refusal(store.record_suspect(claimed.claim, 0), ClaimLost)
