"""The contract of every ledger: garbage: results of writers (PROTOCOL 18). See `stores`."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio

from tidegate.domain.file import Part
from tidegate.domain.ledger.values import ClaimedShard
from tidegate.domain.shard import Verdict
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    LEASE,
    START,
    TENANT,
    ManualClock,
    a_batch,
    a_commit,
    claim_planning,
    claim_shard,
    claim_shards,
    planned,
    result,
    run_whole,
    writer_of,
)
from tidegate.testing.contract.stores_retention import run_to_end
from tidegate.testing.contract.stores_writers import a_blob


class DeletableResultsContract:
    """The contract of `fence_and_list_deletable` of results."""

    async def test_a_writer_at_work_keeps_its_blobs(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        claimed = await claim_shard(store, "anna")
        clock.turn(LEASE - 1)
        assert await store.fence_and_list_deletable([a_blob()], idle_seconds=0) == []
        part = Part(blob=a_blob(), offset=0, length=10)
        commit = a_commit(result(claimed, [0], output=part))
        assert await store.commit(commit) == [Verdict.ACCEPTED]

    async def test_an_owner_whose_claims_expired_is_fenced(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 3), ("m", 3), ("m", 3)])
        mine = await claim_shards(store, "anna", limit=2)
        clock.turn(LEASE)
        for _ in range(2):
            assert await store.fence_and_list_deletable([a_blob()], idle_seconds=0) == [a_blob()]
        commit = a_commit(*(result(one, [0]) for one in mine))
        assert await store.commit(commit) == [Verdict.STALE] * 2
        claims = [one.claim for one in mine]
        assert await store.renew(claims, lease_seconds=LEASE) == [claim.unit for claim in claims]
        again = await claim_shards(store, "anna", limit=3)
        assert [one.shard.epoch for one in again] == [3, 3, 1]
        assert [one.shard.crashes for one in again] == [1, 1, 0]
        await store.begin_writer("writer_new", batch_id="batch_1", owner="anna", at=START)
        commit = a_commit(result(again[0], [0]), segment="2", writer="writer_new")
        assert await store.commit(commit) == [Verdict.ACCEPTED]

    async def test_one_live_claim_of_the_batch_is_enough(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 3), ("m", 3)])
        first = await claim_shard(store, "anna")
        clock.turn(LEASE - 1)
        await claim_shard(store, "anna")
        clock.turn(1)
        assert await store.fence_and_list_deletable([a_blob()], idle_seconds=0) == []
        assert await store.commit(a_commit(result(first, [0]))) == [Verdict.ACCEPTED]

    async def test_claims_of_others_and_of_other_batches_do_not_count(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 3), ("m", 3)])
        await planned(store, a_batch("batch_2"))
        await claim_shard(store, "anna")
        stopped = await claim_shard(store, "bert")
        clock.turn(LEASE)
        await claim_shard(store, "anna", batch_id="batch_2")
        assert await store.fence_and_list_deletable([a_blob()], idle_seconds=0) == [a_blob()]
        # Nobody asked about a writer of the other's: it was stopped, and may still commit.
        await store.begin_writer("writer_bert", batch_id="batch_1", owner="bert", at=START)
        commit = a_commit(result(stopped, [0]), writer="writer_bert")
        assert await store.commit(commit) == [Verdict.ACCEPTED]

    async def test_an_owner_that_handed_everything_back_is_fenced(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store, "anna")
        await store.hand_back([claimed.claim])
        assert await store.fence_and_list_deletable([a_blob()], idle_seconds=0) == [a_blob()]
        assert await store.commit(a_commit(result(claimed, [0]))) == [Verdict.STALE]
        again = await claim_shard(store, "anna")
        assert (again.shard.epoch, again.shard.crashes) == (2, 0)
        assert await store.commit(a_commit(result(again, [0]), segment="2")) == [Verdict.STALE]

    async def test_blobs_of_a_fenced_writer_are_deletable(self, store: Store) -> None:
        await planned(store)
        assert await store.fence_and_list_deletable([a_blob("one")], idle_seconds=0) == [
            a_blob("one")
        ]
        await claim_shard(store, "anna")
        names = [a_blob("two"), a_blob("one")]
        assert await store.fence_and_list_deletable(names, idle_seconds=0) == names

    async def test_all_blobs_of_one_writer_are_deletable_together(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 3), ("m", 3)])
        claimed = await claim_shard(store)
        part = Part(blob=a_blob("kept"), offset=0, length=10)
        await store.commit(a_commit(result(claimed, [0], output=part)))
        clock.turn(LEASE)
        names = [a_blob("c"), a_blob("kept"), a_blob("a")]
        assert await store.fence_and_list_deletable(names, idle_seconds=0) == [names[0], names[2]]
        (shard, _) = await store.get_shards("batch_1")
        assert (shard.epoch, shard.crashes) == (2, 1)

    async def test_committed_blobs_are_never_deletable(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        kept = [Part(blob=a_blob(label), offset=0, length=10) for label in ("results", "errors")]
        await store.commit(a_commit(result(claimed, [0], output=kept[0], errors=kept[1])))
        names = [part.blob for part in kept]
        clock.turn(LEASE)
        assert await store.fence_and_list_deletable(names, idle_seconds=0) == []
        taken = await claim_shard(store, "bert")
        assert taken.shard.epoch == 2, "nobody is fenced over bytes that are needed"
        await run_to_end_of(store, taken)
        assert await store.fence_and_list_deletable(names, idle_seconds=0) == []
        await store.drop_batches(["batch_1"])
        assert await store.fence_and_list_deletable(names, idle_seconds=0) == []

    async def test_nothing_can_be_added_to_a_batch_without_open_shards(self, store: Store) -> None:
        await planned(store)
        await run_whole(store)
        assert await store.fence_and_list_deletable([a_blob()], idle_seconds=0) == [a_blob()]
        finalizing = await store.claim_finalizing("anna", lease_seconds=LEASE)
        assert finalizing is not None
        assert await store.fence_and_list_deletable([a_blob()], idle_seconds=0) == [a_blob()]
        await store.finish_batch(finalizing.claim, at=START)
        assert await store.fence_and_list_deletable([a_blob()], idle_seconds=0) == [a_blob()]

    async def test_results_of_a_dropped_batch_are_deletable(self, store: Store) -> None:
        await planned(store)
        await run_to_end(store)
        await store.drop_batches(["batch_1"])
        names = [a_blob(), a_blob(batch_id="batch_x")]
        assert await store.fence_and_list_deletable(names, idle_seconds=0) == names

    async def test_blobs_of_an_unknown_writer_are_deletable_and_it_can_not_begin(
        self, store: Store
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        name = a_blob(writer="writer_x")
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]
        await store.begin_writer("writer_x", batch_id="batch_1", owner="anna", at=START)
        commit = a_commit(result(claimed, [0]), writer="writer_x")
        assert await store.commit(commit) == [Verdict.STALE]
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]

    async def test_a_name_that_carries_its_owner_is_judged_by_the_owner(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store, "anna")
        name = a_blob(writer="anna")
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == []
        clock.turn(LEASE)
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]
        assert await store.commit(a_commit(result(claimed, [0]))) == [Verdict.STALE]

    async def test_a_planner_may_begin_before_there_are_shards(
        self, store: Store, clock: ManualClock
    ) -> None:
        await store.create_batch(a_batch())
        planning = (await claim_planning(store, "anna")).claim
        await store.begin_writer("writer_a", batch_id="batch_1", owner="anna", at=START)
        name = a_blob(writer="writer_a")
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == []
        clock.turn(LEASE)
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]
        assert await store.renew([planning], lease_seconds=LEASE) == [planning.unit]

    async def test_blobs_named_for_another_batch_are_never_deletable(self, store: Store) -> None:
        await planned(store)
        await planned(store, a_batch("batch_2"))
        name = a_blob(batch_id="batch_2", writer=writer_of("batch_1"))
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == []

    async def test_one_of_a_concurrent_commit_and_fence_wins(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 1)] * 20)
        claimed = [await claim_shard(store, f"owner-{n}") for n in range(20)]
        for n in range(20):
            await store.begin_writer(f"writer_{n}", batch_id="batch_1", owner=f"owner-{n}", at=1.0)
        clock.turn(LEASE)

        async def commit(n: int) -> bool:
            part = Part(blob=a_blob(writer=f"writer_{n}"), offset=0, length=10)
            request = a_commit(
                result(claimed[n], [0], output=part), segment=f"s{n}", writer=f"writer_{n}"
            )
            return await store.commit(request) == [Verdict.ACCEPTED]

        async def fence_and_list_deletable(n: int) -> bool:
            return bool(
                await store.fence_and_list_deletable([a_blob(writer=f"writer_{n}")], idle_seconds=0)
            )

        # The last shard stays open, for a batch without one gives everything away.
        answers = await asyncio.gather(
            *(call(n) for n in range(10) for call in (commit, fence_and_list_deletable)),
            *(call(n) for n in range(10, 19) for call in (fence_and_list_deletable, commit)),
        )
        won = list(zip(answers[::2], answers[1::2], strict=True))
        assert all(first != second for first, second in won)
        committed = sum(first for first, _ in won[:10]) + sum(second for _, second in won[10:])
        assert (await store.get_batch(TENANT, "batch_1")).counts.completed == committed


async def run_to_end_of(store: Store, claimed: ClaimedShard) -> None:
    """Complete the last two lines of the shard and finalize the batch."""
    await store.begin_writer("writer_end", batch_id="batch_1", owner="bert", at=START)
    commit = a_commit(result(claimed, [1, 2]), segment="end", writer="writer_end")
    assert await store.commit(commit) == [Verdict.ACCEPTED]
    finalizing = await store.claim_finalizing("bert", lease_seconds=LEASE)
    assert finalizing is not None
    await store.finish_batch(finalizing.claim, at=START)
