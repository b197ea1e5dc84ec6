"""The contract of every ledger: claims (PROTOCOL 1 to 4). See `stores` for use."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from dataclasses import replace

from tidegate.domain.batch import Status
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.ledger.values import ClaimedBatch, Want
from tidegate.domain.shard import is_done
from tidegate.domain.share import Offer, in_order
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
    claim_finalizing,
    claim_planning,
    claim_shard,
    claim_shards,
    list_offers,
    planned,
    result,
    run_whole,
)


class ClaimPlanningContract:
    """The contract of `claim_planning`."""

    async def test_the_oldest_batch_comes_first(self, store: Store) -> None:
        for batch_id, age in [("b", 1), ("c", 0), ("a", 1)]:
            await store.create_batch(a_batch(batch_id, created_at=START - age))
        claimed = [await claim_planning(store) for _ in range(3)]
        assert [one.batch.id for one in claimed] == ["a", "b", "c"]
        assert await store.claim_planning("anna", lease_seconds=LEASE) is None

    async def test_a_claim_says_all_it_is(self, store: Store) -> None:
        batch = await store.create_batch(a_batch())
        claimed = await claim_planning(store, "anna")
        assert claimed.batch == batch
        assert claimed.claim == Claim(
            unit=Unit(batch_id="batch_1", kind=Kind.PLANNING),
            owner="anna",
            epoch=1,
            expires_at=START + LEASE,
        )

    async def test_of_many_claimers_one_wins(self, store: Store) -> None:
        await store.create_batch(a_batch())
        claimed = await asyncio.gather(
            *(store.claim_planning(f"owner-{n}", lease_seconds=LEASE) for n in range(20))
        )
        assert sum(one is not None for one in claimed) == 1

    async def test_an_expired_claim_passes_on_with_a_higher_epoch(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        await claim_planning(store, "anna")
        clock.turn(LEASE - 0.5)
        assert await store.claim_planning("bert", lease_seconds=LEASE) is None
        clock.turn(0.5)
        claimed = await claim_planning(store, "bert")
        assert (claimed.claim.owner, claimed.claim.epoch) == ("bert", 2)

    async def test_a_planned_batch_needs_no_planning(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        clock.turn(LEASE * 2)
        assert await store.claim_planning("bert", lease_seconds=LEASE) is None

    async def test_only_what_is_ending_is_given_to_be_ended(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch("old", created_at=START - 2))
        await store.create_batch(a_batch("gone", created_at=START - 1))
        await store.create_batch(replace(a_batch("short"), expires_at=START + LEASE))

        async def claim() -> ClaimedBatch | None:
            return await store.claim_planning("anna", lease_seconds=LEASE, ending_only=True)

        assert await claim() is None
        cancelling = await store.cancel_batch(TENANT, "gone", at=START)
        held = await claim()
        assert held is not None
        assert (held.batch, held.claim.epoch) == (cancelling, 1)
        assert await claim() is None, "it is held"
        await store.end_unplanned(held.claim, problems=[], at=START)
        clock.turn(LEASE - 0.5)
        assert await claim() is None
        clock.turn(0.5)
        held = await claim()
        assert held is not None
        assert held.batch.id == "short"
        await store.hand_back([held.claim], wait_seconds=9 * LEASE)
        again = await claim()
        assert again is not None, "what is ending waits for nothing"
        assert (again.batch.id, again.claim.epoch) == ("short", 2)
        assert (await claim_planning(store)).batch.id == "old"

    async def test_a_batch_cancelled_unplanned_is_offered_to_be_ended(self, store: Store) -> None:
        await store.create_batch(a_batch())
        cancelling = await store.cancel_batch(TENANT, "batch_1", at=START)
        claimed = await claim_planning(store)
        assert claimed.batch == cancelling
        await store.end_unplanned(claimed.claim, problems=[], at=START)
        assert await store.claim_planning("bert", lease_seconds=LEASE) is None


async def lines_at_work(store: Store) -> dict[str, tuple[int, int]]:
    """Return the claimed lines of each batch on offer, and those of its tenant."""
    offers = await list_offers(store)
    return {offer.batch_id: (offer.claimed_lines, offer.tenant_lines) for offer in offers}


class PollContract:
    """The contract of `poll` beside its offers."""

    async def test_it_tells_time_members_and_the_rank_of_the_owner(
        self, store: Store, clock: ManualClock
    ) -> None:
        nothing = await store.poll("bert", offers_max=9)
        assert (nothing.now, nothing.members, nothing.rank) == (START, 0, None)
        assert (nothing.statuses, nothing.offers) == ({}, ())
        for owner in ("cleo", "bert"):
            await store.renew_membership(owner, lease_seconds=LEASE)
        clock.turn(1.5)
        assert [(await store.poll(owner, offers_max=9)).rank for owner in ("bert", "cleo")] == [
            0,
            1,
        ]
        stranger = await store.poll("anna", offers_max=9)
        assert (stranger.now, stranger.members, stranger.rank) == (START + 1.5, 2, None)
        clock.turn(LEASE)
        assert (await store.poll("bert", offers_max=9)).members == 0

    async def test_statuses_are_those_of_the_batches_asked_for(self, store: Store) -> None:
        await planned(store)
        await store.create_batch(a_batch("batch_2"))
        found = await store.poll("anna", offers_max=9, batch_ids=["batch_1", "nobody's"])
        assert found.statuses == {"batch_1": Status.IN_PROGRESS}

    async def test_a_planning_that_could_be_claimed_is_due(
        self, store: Store, clock: ManualClock
    ) -> None:
        assert await due(store) == (False, False)
        await store.create_batch(a_batch())
        assert await due(store) == (True, False)
        assert await due(store, ending_only=True) == (False, False)
        claimed = await claim_planning(store)
        assert await due(store) == (False, False)
        clock.turn(LEASE)
        assert await due(store) == (True, False)
        await store.hand_back([claimed.claim], wait_seconds=30)
        assert await due(store) == (False, False)
        clock.turn(WINDOW)
        assert await due(store, ending_only=True) == (True, False)

    async def test_a_finalizing_that_could_be_claimed_is_due(self, store: Store) -> None:
        await planned(store)
        assert await due(store) == (False, False)
        await run_whole(store)
        assert await due(store) == (False, True)
        await claim_finalizing(store)
        assert await due(store) == (False, False)

    async def test_it_changes_nothing(self, store: Store) -> None:
        await planned(store, shards=[("m", 2), ("n", 3)])
        before = await store.get_shards("batch_1")
        for _ in range(2):
            await store.poll("anna", offers_max=9, batch_ids=["batch_1"])
        assert await store.get_shards("batch_1") == before

    async def test_offers_are_bounded_and_come_in_the_order_of_shares(
        self, store: Store, clock: ManualClock
    ) -> None:
        for number in range(40):
            tenant = f"tenant-{number % 4}"
            batch = a_batch(f"batch_{number:02}", tenant=tenant, created_at=START - number % 7)
            await planned(store, batch, shards=[("m", 5), ("m", 4), ("n", 1 + number % 3)])
        for number in (3, 7, 11, 12, 30):
            await claim_shards(store, batch_id=f"batch_{number:02}", limit=1)
        await store.cancel_batch("tenant-1", "batch_05", at=START)
        offers = await list_offers(store)
        assert len(offers) == 80
        assert offers == in_order(offers)
        assert offers[0].batch_id == "batch_05"
        for limit in (0, 1, 2, 33, 79, 80):
            found = await store.poll("anna", offers_max=limit)
            assert list(found.offers) == offers[:limit]
        skipped = await store.poll("anna", offers_max=7, skip_models=["m"])
        assert list(skipped.offers) == [offer for offer in offers if offer.model == "n"][:7]
        only = await store.poll("anna", offers_max=7, ending_only=True)
        assert {offer.batch_id for offer in only.offers} == {"batch_05"}
        clock.turn(WINDOW)
        assert len((await store.poll("anna", offers_max=99, ending_only=True)).offers) == 80


async def due(store: Store, *, ending_only: bool = False) -> tuple[bool, bool]:
    """Return whether a planning and a finalizing are due."""
    found = await store.poll("anna", offers_max=0, ending_only=ending_only)
    return found.planning_due, found.finalizing_due


class OffersContract:
    """What the offers of `poll` promise."""

    async def test_without_shards_there_are_no_offers(self, store: Store) -> None:
        assert await list_offers(store) == []
        await store.create_batch(a_batch())
        assert await list_offers(store) == []

    async def test_each_model_of_a_batch_is_one_offer(self, store: Store) -> None:
        await planned(store, shards=[("m", 3), ("m", 2), ("n", 1)])
        first = Offer(
            batch_id="batch_1",
            tenant=TENANT,
            model="m",
            created_at=START,
            expires_at=START + WINDOW,
            shards=2,
            claimed_lines=0,
            tenant_lines=0,
            ending=False,
        )
        assert await list_offers(store) == [first, replace(first, model="n", shards=1)]

    async def test_claimed_lines_are_the_undone_ones_of_every_model(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 5), ("m", 4), ("n", 7), ("n", 1)])
        claimed = await claim_shard(store)
        await claim_shards(store, "bert", model="n", limit=1)
        await store.commit(a_commit(result(claimed, [0, 4])))
        offers = await list_offers(store)
        assert [(o.model, o.shards, o.claimed_lines) for o in offers] == [
            ("m", 1, 10),
            ("n", 1, 10),
        ]
        clock.turn(LEASE)
        offers = await list_offers(store)
        assert [(o.model, o.shards, o.claimed_lines) for o in offers] == [("m", 2, 0), ("n", 2, 0)]

    async def test_tenant_lines_are_of_all_its_batches_also_of_those_claimed_to_the_last(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 5), ("n", 7)])
        held = await claim_shards(store)
        await claim_shards(store, "bert", model="n")
        await planned(store, a_batch("batch_2"), shards=[("m", 4), ("n", 4)])
        await claim_shards(store, batch_id="batch_2")
        await planned(store, a_batch("batch_3", tenant="tenant-two"), shards=[("m", 3)])
        await store.commit(a_commit(result(held[0], [0, 4])))
        assert await lines_at_work(store) == {"batch_2": (4, 14), "batch_3": (0, 0)}
        await store.commit(a_commit(result(held[0], [1, 2, 3], sequence=1), segment="segment-2"))
        assert await lines_at_work(store) == {"batch_2": (4, 11), "batch_3": (0, 0)}
        await claim_shards(store, batch_id="batch_3")
        clock.turn(LEASE)
        assert await lines_at_work(store) == {f"batch_{number}": (0, 0) for number in (1, 2, 3)}

    async def test_what_is_held_or_ended_is_no_offer(self, store: Store) -> None:
        await planned(store, shards=[("m", 1), ("m", 1)])
        claimed = await claim_shards(store)
        assert await list_offers(store) == []
        await store.commit(a_commit(result(claimed[0], [0])))
        await store.hand_back([one.claim for one in claimed])
        assert [offer.shards for offer in await list_offers(store)] == [1]

    async def test_a_wait_holds_an_offer_back(self, store: Store, clock: ManualClock) -> None:
        await planned(store, shards=[("m", 1), ("m", 1)])
        claimed = await claim_shard(store)
        await store.hand_back([claimed.claim], wait_seconds=30)
        assert [offer.shards for offer in await list_offers(store)] == [1]
        clock.turn(29.5)
        assert [offer.shards for offer in await list_offers(store)] == [1]
        clock.turn(0.5)
        assert [offer.shards for offer in await list_offers(store)] == [2]

    async def test_an_ending_batch_waits_for_nothing(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.hand_back([claimed.claim], wait_seconds=2 * WINDOW)
        assert await list_offers(store) == []
        clock.turn(WINDOW - 0.5)
        assert await list_offers(store) == []
        clock.turn(0.5)
        assert [offer.ending for offer in await list_offers(store)] == [True]

    async def test_a_cancelled_batch_is_ending(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.hand_back([claimed.claim], wait_seconds=30)
        await store.cancel_batch(TENANT, "batch_1", at=START)
        assert [offer.ending for offer in await list_offers(store)] == [True]
        assert len(await claim_shards(store)) == 1


class ClaimShardsContract:
    """The contract of `claim_shards`."""

    async def test_the_lowest_numbers_come_first(self, store: Store) -> None:
        batch = await planned(store, shards=[("m", 1), ("n", 1), ("m", 2), ("m", 3)])
        wants = [Want(batch_id="batch_1", model="m", limit=2)]
        (claimed,) = await store.claim_shards("anna", wants, lease_seconds=LEASE)
        assert claimed.batch == batch
        assert [one.shard.plan.number for one in claimed.shards] == [0, 2]
        assert [one.shard.plan.number for one in await claim_shards(store)] == [3]

    async def test_a_claimed_shard_says_all_it_is(self, store: Store) -> None:
        await planned(store, shards=[("m", 9)])
        claimed = await claim_shard(store)
        assert claimed.shard.plan == a_plan("batch_1", [("m", 9)]).shards[0]
        assert claimed.shard.done == bytes(2)
        assert (claimed.shard.epoch, claimed.shard.sequence, claimed.shard.ended) == (1, 0, False)
        assert claimed.claim == Claim(
            unit=Unit(batch_id="batch_1", kind=Kind.SHARD, number=0),
            owner="anna",
            epoch=1,
            expires_at=START + LEASE,
        )

    async def test_wishes_are_answered_by_batch_and_empty_ones_skipped(self, store: Store) -> None:
        await planned(store, shards=[("m", 1), ("n", 1), ("n", 1)])
        await planned(store, a_batch("batch_2"), shards=[("m", 1)])
        wants = [
            Want(batch_id="batch_2", model="m", limit=1),
            Want(batch_id="batch_x", model="m", limit=1),
            Want(batch_id="batch_1", model="n", limit=1),
            Want(batch_id="batch_2", model="n", limit=1),
            Want(batch_id="batch_1", model="m", limit=0),
            Want(batch_id="batch_1", model="n", limit=1),
        ]
        claimed = await store.claim_shards("anna", wants, lease_seconds=LEASE)
        assert [
            (one.batch.id, [shard.shard.plan.number for shard in one.shards]) for one in claimed
        ] == [("batch_2", [0]), ("batch_1", [1, 2])]
        assert await store.claim_shards("anna", [], lease_seconds=LEASE) == []

    async def test_no_shard_is_given_twice(self, store: Store) -> None:
        await planned(store, shards=[("m", 1)] * 10)
        claimed = await asyncio.gather(
            *(claim_shards(store, f"owner-{n}", limit=3) for n in range(8))
        )
        numbers = [one.shard.plan.number for shards in claimed for one in shards]
        assert sorted(numbers) == list(range(10))

    async def test_an_expired_claim_passes_on_with_what_is_done(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        first = await claim_shard(store, "anna")
        await store.commit(a_commit(result(first, [1])))
        assert await claim_shards(store, "bert") == ()
        clock.turn(LEASE)
        second = await claim_shard(store, "bert")
        assert second.claim.epoch == second.shard.epoch == 2
        assert [is_done(second.shard.done, index) for index in range(3)] == [False, True, False]
        assert (second.shard.sequence, second.shard.last_segment) == (1, "segment-1")

    async def test_an_ended_shard_is_never_claimed(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        await run_whole(store)
        clock.turn(LEASE * 2)
        assert await claim_shards(store) == ()

    async def test_a_shard_that_waits_is_claimed_when_its_time_comes(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.hand_back([claimed.claim], wait_seconds=1)
        clock.turn(0.5)
        assert await claim_shards(store, "bert") == ()
        clock.turn(0.5)
        await claim_shard(store, "bert")
        clock.turn(LEASE)
        await claim_shard(store, "cleo")
