"""The contract of every ledger: writers of results (PROTOCOL 18). See `stores` for use."""

# ruff: noqa: D102 -- these are tests: their names are sentences, their numbers plain

from tidegate.domain.batch import Status
from tidegate.domain.blob_names import ResultBlob
from tidegate.domain.errors import NotFound
from tidegate.domain.file import Part
from tidegate.domain.shard import Verdict
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    LEASE,
    START,
    TENANT,
    ManualClock,
    a_batch,
    a_commit,
    a_plan,
    begin_writer,
    claim_planning,
    claim_shard,
    claim_shards,
    planned,
    refusal,
    result,
    writer_of,
)


def a_blob(label: str = "x", *, batch_id: str = "batch_1", writer: str | None = None) -> str:
    """Return the name of a blob by the writer that `planned` begins, or by another."""
    return ResultBlob(batch_id=batch_id, writer=writer or writer_of(batch_id), label=label).name


async def fence(store: Store, clock: ManualClock, batch_id: str = "batch_1") -> None:
    """Let every claim expire, and fence the writer of a batch over bytes that no row needs."""
    clock.turn(LEASE)
    name = a_blob("unused", batch_id=batch_id)
    assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]


class BeginWriterContract:
    """The contract of `begin_writer`, and of commits under its writer."""

    async def test_a_writer_that_was_never_begun_is_stale(self, store: Store) -> None:
        await planned(store, shards=[("m", 1), ("m", 1)])
        first, second = await claim_shards(store)
        part = Part(blob="results", offset=0, length=10)
        commit = a_commit(
            result(first, [0], output=part), result(second, [0], output=part), writer="writer_x"
        )
        for _ in range(2):
            assert await store.commit(commit) == [Verdict.STALE] * 2
        batch = await store.get_batch(TENANT, "batch_1")
        assert (batch.counts.completed, batch.output_bytes) == (0, 0)
        await refusal(store.get_file(TENANT, "file-batch_1-output"), NotFound)
        await store.begin_writer("writer_x", batch_id="batch_1", owner="anna", at=START)
        assert await store.commit(commit) == [Verdict.ACCEPTED] * 2

    async def test_a_writer_writes_for_one_batch(self, store: Store) -> None:
        await planned(store)
        await planned(store, a_batch("batch_2"))
        claimed = await claim_shard(store, batch_id="batch_2")
        commit = a_commit(result(claimed, [0]), batch_id="batch_2", writer=writer_of("batch_1"))
        assert await store.commit(commit) == [Verdict.STALE]
        await store.begin_writer(writer_of("batch_1"), batch_id="batch_2", owner="anna", at=START)
        assert await store.commit(commit) == [Verdict.STALE]

    async def test_nothing_is_recorded_for_a_batch_that_is_not_there(self, store: Store) -> None:
        await begin_writer(store)
        await store.create_batch(a_batch())
        planning = await claim_planning(store)
        await store.plan_batch(planning.claim, a_plan("batch_1", [("m", 3)]), at=START)
        claimed = await claim_shard(store)
        assert await store.commit(a_commit(result(claimed, [0]))) == [Verdict.STALE]
        await begin_writer(store)
        assert await store.commit(a_commit(result(claimed, [0]))) == [Verdict.ACCEPTED]

    async def test_many_writers_may_write_for_one_batch(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        for number in range(3):
            writer = f"writer_{number}"
            await store.begin_writer(writer, batch_id="batch_1", owner="anna", at=START)
            commit = a_commit(
                result(claimed, [number], sequence=number), segment=writer, writer=writer
            )
            assert await store.commit(commit) == [Verdict.ACCEPTED]
        batch = await store.get_batch(TENANT, "batch_1")
        assert batch.status is Status.FINALIZING

    async def test_a_fenced_writer_stays_fenced(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        await fence(store, clock)
        await begin_writer(store)
        await begin_writer(store, owner="bert")
        claimed = await claim_shard(store)
        assert await store.commit(a_commit(result(claimed, [0]))) == [Verdict.STALE]
        await store.begin_writer("writer_new", batch_id="batch_1", owner="anna", at=START)
        commit = a_commit(result(claimed, [0]), writer="writer_new")
        assert await store.commit(commit) == [Verdict.ACCEPTED]

    async def test_a_repeat_by_a_fenced_writer_gets_its_first_answer(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 1), ("m", 2), ("m", 2), ("m", 2)])
        ended, stale, good, later = await claim_shards(store)
        await store.commit(a_commit(result(ended, [0])))
        commit = a_commit(
            result(ended, [0], sequence=1),
            result(stale, [0], sequence=1),
            result(good, [0]),
            segment="segment-2",
        )
        verdicts = [Verdict.ENDED, Verdict.STALE, Verdict.ACCEPTED]
        assert await store.commit(commit) == verdicts
        once = await store.get_batch(TENANT, "batch_1")
        await fence(store, clock)
        assert await store.commit(commit) == verdicts
        assert await store.commit(a_commit(result(later, [0]), segment="3")) == [Verdict.STALE]
        assert await store.commit(a_commit(result(ended, [0]), segment="3")) == [Verdict.STALE]
        assert await store.get_batch(TENANT, "batch_1") == once

    async def test_a_fence_affects_one_writer_only(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        await store.begin_writer("writer_bert", batch_id="batch_1", owner="bert", at=START)
        await fence(store, clock)
        claimed = await claim_shard(store, "bert")
        commit = a_commit(result(claimed, [0]), writer="writer_bert")
        assert await store.commit(commit) == [Verdict.ACCEPTED]
