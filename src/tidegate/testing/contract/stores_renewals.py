"""The contract of every ledger: finalizing claims, renewal, hand-back. See `stores` for use."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from dataclasses import replace

from tidegate.domain.batch import Status
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.shard import Verdict, is_done
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    LEASE,
    START,
    TENANT,
    WINDOW,
    ManualClock,
    a_batch,
    a_commit,
    a_plan,
    begin_writer,
    claim_finalizing,
    claim_planning,
    claim_shard,
    claim_shards,
    planned,
    result,
    run_whole,
)


class ClaimFinalizingContract:
    """The contract of `claim_finalizing`."""

    async def test_it_opens_with_the_end_of_the_last_shard(self, store: Store) -> None:
        await planned(store, shards=[("m", 1), ("m", 1)])
        first, second = await claim_shards(store)
        await store.commit(a_commit(result(first, [0])))
        assert await store.claim_finalizing("anna", lease_seconds=LEASE) is None
        await store.commit(a_commit(result(second, [0]), segment="segment-2"))
        claimed = await claim_finalizing(store)
        assert claimed.batch.status is Status.FINALIZING
        assert claimed.claim == Claim(
            unit=Unit(batch_id="batch_1", kind=Kind.FINALIZING),
            owner="anna",
            epoch=1,
            expires_at=START + LEASE,
        )
        assert await store.claim_finalizing("bert", lease_seconds=LEASE) is None

    async def test_it_opens_for_a_batch_that_is_cancelling(self, store: Store) -> None:
        await planned(store)
        await store.cancel_batch(TENANT, "batch_1", at=START)
        assert await store.claim_finalizing("anna", lease_seconds=LEASE) is None
        await run_whole(store)
        assert (await claim_finalizing(store)).batch.status is Status.CANCELLING

    async def test_an_expired_claim_can_be_claimed(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        await run_whole(store)
        await claim_finalizing(store, "anna")
        clock.turn(LEASE)
        assert (await claim_finalizing(store, "bert")).claim.epoch == 2

    async def test_the_oldest_batch_comes_first_and_an_ended_one_never(self, store: Store) -> None:
        for batch_id, age in [("b", 1), ("a", 0), ("c", 2)]:
            await planned(store, a_batch(batch_id, created_at=START - age))
            await run_whole(store, batch_id)
        order: list[str] = []
        while (claimed := await store.claim_finalizing("anna", lease_seconds=LEASE)) is not None:
            order.append(claimed.batch.id)
            await store.finish_batch(claimed.claim, at=START)
        assert order == ["c", "b", "a"]

    async def test_a_hand_back_may_ask_for_a_wait(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        await run_whole(store)
        claimed = await claim_finalizing(store)
        await store.hand_back([claimed.claim], wait_seconds=2 * WINDOW)
        clock.turn(2 * WINDOW - 0.5)
        assert await store.claim_finalizing("bert", lease_seconds=LEASE) is None
        clock.turn(0.5)
        await claim_finalizing(store, "bert")


class RenewContract:
    """The contract of `renew`."""

    async def test_a_renewed_claim_stays_live(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        for _ in range(3):
            clock.turn(LEASE - 1)
            assert await store.renew([claimed.claim], lease_seconds=LEASE) == []
            assert await claim_shards(store, "bert") == ()

    async def test_an_expired_claim_that_nobody_took_is_renewed(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        clock.turn(LEASE * 5)
        assert await store.renew([claimed.claim], lease_seconds=LEASE) == []
        assert await claim_shards(store, "bert") == ()

    async def test_a_claim_that_was_taken_over_is_lost(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        old = await claim_shard(store, "anna")
        clock.turn(LEASE)
        new = await claim_shard(store, "anna")
        assert await store.renew([old.claim, new.claim], lease_seconds=LEASE) == [old.claim.unit]

    async def test_a_claim_that_was_handed_back_is_lost(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.hand_back([claimed.claim])
        assert await store.renew([claimed.claim], lease_seconds=LEASE) == [claimed.claim.unit]
        await claim_shard(store, "bert")

    async def test_an_ended_unit_of_each_kind_is_lost(self, store: Store) -> None:
        await store.create_batch(a_batch())
        planning = (await claim_planning(store)).claim
        await store.plan_batch(planning, a_plan("batch_1", [("m", 1)]), at=START)
        await begin_writer(store)
        claimed = await claim_shard(store)
        await store.commit(a_commit(result(claimed, [0])))
        finalizing = (await claim_finalizing(store)).claim
        assert await store.renew([finalizing], lease_seconds=LEASE) == []
        await store.finish_batch(finalizing, at=START)
        claims = [planning, claimed.claim, finalizing]
        assert await store.renew(claims, lease_seconds=LEASE) == [one.unit for one in claims]

    async def test_an_unknown_unit_is_lost(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        units = [
            Unit(batch_id="batch_x", kind=Kind.PLANNING),
            Unit(batch_id="batch_1", kind=Kind.FINALIZING),
            Unit(batch_id="batch_1", kind=Kind.SHARD, number=7),
        ]
        claims = [replace(claimed.claim, unit=unit) for unit in units]
        assert await store.renew(claims, lease_seconds=LEASE) == units
        assert await store.renew([], lease_seconds=LEASE) == []

    async def test_fifty_concurrent_renewals_all_count(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 1)] * 50)
        claimed = await claim_shards(store)
        clock.turn(LEASE - 1)
        lost = await asyncio.gather(
            *(store.renew([one.claim], lease_seconds=LEASE) for one in claimed)
        )
        assert lost == [[]] * 50
        clock.turn(LEASE - 1)
        assert await claim_shards(store, "bert") == ()


class HandBackContract:
    """The contract of `hand_back`."""

    async def test_others_may_claim_it_immediately(self, store: Store) -> None:
        await store.create_batch(a_batch())
        planning = await claim_planning(store, "anna")
        await store.hand_back([planning.claim])
        assert (await claim_planning(store, "bert")).claim.epoch == 2

    async def test_the_ledger_clock_counts_the_wait_exactly(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        for off_seconds in (0.0, -5_000.0, 5_000.0):
            claimed = await claim_shard(store)
            clock.turn(LEASE / 2)
            # The caller's idea of the time has no effect: it passes durations only.
            believed = replace(claimed.claim, expires_at=clock.now() + off_seconds)
            await store.hand_back([believed], wait_seconds=30)
            clock.turn(29.75)
            assert await claim_shards(store, "bert") == ()
            clock.turn(0.25)
            await store.hand_back([(await claim_shard(store, "bert")).claim])

    async def test_a_wait_of_zero_is_no_wait(self, store: Store) -> None:
        await planned(store)
        await store.hand_back([(await claim_shard(store)).claim], wait_seconds=0)
        await claim_shard(store, "bert")

    async def test_a_repeated_hand_back_does_not_extend_the_wait(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.hand_back([claimed.claim], wait_seconds=10)
        clock.turn(9)
        await store.hand_back([claimed.claim], wait_seconds=10)
        clock.turn(1)
        await claim_shard(store, "bert")

    async def test_planning_waits_too_unless_the_batch_is_ending(self, store: Store) -> None:
        await store.create_batch(a_batch())
        planning = await claim_planning(store)
        await store.hand_back([planning.claim], wait_seconds=1)
        assert await store.claim_planning("bert", lease_seconds=LEASE) is None
        await store.cancel_batch(TENANT, "batch_1", at=START)
        await claim_planning(store, "bert")

    async def test_a_lost_claim_is_skipped(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        old = await claim_shard(store, "anna")
        clock.turn(LEASE)
        new = await claim_shard(store, "bert")
        unknown = Unit(batch_id="batch_x", kind=Kind.SHARD, number=0)
        await store.hand_back([old.claim, replace(old.claim, unit=unknown)])
        assert await store.renew([new.claim], lease_seconds=LEASE) == []
        await store.hand_back([])

    async def test_a_repeat_does_not_take_it_from_the_next(self, store: Store) -> None:
        await planned(store)
        old = await claim_shard(store)
        await store.hand_back([old.claim])
        new = await claim_shard(store)
        await store.hand_back([old.claim])
        assert await store.renew([new.claim], lease_seconds=LEASE) == []

    async def test_a_late_commit_is_accepted_until_another_owner_claims(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.hand_back([claimed.claim])
        assert await store.commit(a_commit(result(claimed, [0]))) == [Verdict.ACCEPTED]
        new = await claim_shard(store, "bert")
        late = a_commit(result(claimed, [1], sequence=1), segment="segment-2")
        assert await store.commit(late) == [Verdict.STALE]
        assert is_done(new.shard.done, 0)
