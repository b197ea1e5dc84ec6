"""The contract of every ledger: references and repair (PROTOCOL 19)."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

from dataclasses import replace

from tidegate.domain.batch import Batch, Counts, Status
from tidegate.domain.file import Part
from tidegate.domain.ledger.values import ClaimedShard, FileRepair, Reference, Repair, ShardRepair
from tidegate.domain.shard import Tally, Verdict, is_done, no_lines_done, with_done
from tidegate.domain.usage import Usage
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    INPUT,
    LEASE,
    START,
    TENANT,
    ManualClock,
    a_batch,
    a_commit,
    a_plan,
    claim_shard,
    claim_shards,
    list_offers,
    planned,
    result,
    run_whole,
    upload,
)
from tidegate.testing.contract.stores_retention import run_to_end

OUTPUT = "file-batch_1-output"
ERRORS = "file-batch_1-error"
OUTPUTS = tuple(Part(blob=f"results/batch_1/w.{n}", offset=0, length=10) for n in range(2))
ERROR = Part(blob="results/batch_1/w.1", offset=10, length=7)
USAGE = Usage(input_tokens=5, cached_tokens=1, output_tokens=7, reasoning_tokens=2)
LOST = Tally(completed=1, failed=1, usage=USAGE)


class ReferencesContract:
    """The contract of `list_references`, `list_batches_of` and `get_shards`."""

    async def test_every_blob_that_a_row_needs_comes_once_by_name(self, store: Store) -> None:
        await upload(store, "file-a")
        await upload(store, "file-b")
        await store.delete_file(TENANT, "file-a")
        await planned(store, shards=[("m", 3), ("n", 2)])
        claimed = await claim_shard(store)
        slices = [Part(blob="results/x", offset=offset, length=5) for offset in (0, 40, 20)]
        for number, part in enumerate(slices):
            commit = a_commit(
                result(claimed, [number], sequence=number, output=part), segment=str(number)
            )
            await store.commit(commit)
        found = [
            Reference(blob="plans/batch_1", bytes_needed=2000),
            Reference(blob="results/x", bytes_needed=45),
            Reference(blob=INPUT.blob, bytes_needed=INPUT.length),
        ]
        assert await store.list_references(after="", limit=3) == found
        assert await store.list_references(after="", limit=2) == found[:2]
        assert await store.list_references(after=found[0].blob, limit=9) == found[1:]
        assert await store.list_references(after=found[2].blob, limit=9) == []

    async def test_the_plan_of_an_ended_batch_is_not_needed(self, store: Store) -> None:
        await planned(store)
        await run_to_end(store)
        found = await store.list_references(after="", limit=9)
        assert found == [Reference(blob="results/batch_1", bytes_needed=30)]
        await store.delete_file(TENANT, OUTPUT)
        await store.release_files([OUTPUT], keep_seconds=60)
        assert await store.list_references(after="", limit=9) == []

    async def test_a_blob_says_whose_it_is(self, store: Store) -> None:
        await upload(store)
        for batch_id in ("batch_2", "batch_1"):
            await planned(store, a_batch(batch_id))
            claimed = await claim_shard(store, batch_id=batch_id)
            part = Part(blob="results/both", offset=0, length=5)
            commit = a_commit(result(claimed, [0], output=part, errors=part), batch_id=batch_id)
            await store.commit(commit)
        both = [await store.get_batch(TENANT, batch_id) for batch_id in ("batch_1", "batch_2")]
        assert await store.list_batches_of("results/both") == both
        assert await store.list_batches_of("plans/batch_2") == both[1:]
        assert await store.list_batches_of(INPUT.blob) == []
        assert await store.list_batches_of("unknown") == []

    async def test_ended_batches_still_need_their_results(self, store: Store) -> None:
        await planned(store)
        await run_to_end(store)
        (found,) = await store.list_batches_of("results/batch_1")
        assert found == await store.get_batch(TENANT, "batch_1")
        assert await store.list_batches_of("plans/batch_1") == []
        await store.drop_batches(["batch_1"])
        assert await store.list_batches_of("results/batch_1") == []

    async def test_shards_come_by_number_as_they_are(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store, shards=[("m", 1), ("n", 2), ("m", 9)])
        assert [shard.plan for shard in await store.get_shards("batch_1")] == list(
            a_plan("batch_1", [("m", 1), ("n", 2), ("m", 9)]).shards
        )
        first, third = await claim_shards(store)
        await store.commit(a_commit(result(first, [0]), result(third, [8])))
        clock.turn(LEASE)
        (taken,) = await claim_shards(store, "bert")
        shards = await store.get_shards("batch_1")
        assert shards[2] == taken.shard
        assert [(s.epoch, s.sequence, s.ended, s.crashes) for s in shards] == [
            (1, 1, True, 0),
            (0, 0, False, 0),
            (2, 1, False, 1),
        ]
        assert await store.get_shards("batch_x") == []


async def damaged(store: Store) -> tuple[tuple[ClaimedShard, ...], Batch]:
    """Make a running batch of two shards: one ended, one with its first two lines done."""
    await planned(store, shards=[("m", 2), ("m", 3)])
    claimed = await claim_shards(store)
    first = a_commit(
        result(claimed[0], [0, 1], output=OUTPUTS[0], tally=Tally(completed=2, usage=USAGE))
    )
    assert await store.commit(first) == [Verdict.ACCEPTED]
    second = a_commit(
        result(claimed[1], [0, 1], output=OUTPUTS[1], errors=ERROR, tally=LOST), segment="segment-2"
    )
    assert await store.commit(second) == [Verdict.ACCEPTED]
    return claimed, await store.get_batch(TENANT, "batch_1")


def repair_of(claimed: ClaimedShard, *, kept: tuple[int, ...] = ()) -> Repair:
    """Return what undoes the second commit of `damaged`; `kept` lines stay done."""
    lost = Tally(completed=1, failed=1 - len(kept), usage=USAGE)
    return Repair(
        batch_id="batch_1",
        shards=(
            ShardRepair(
                number=claimed.shard.plan.number,
                epoch=claimed.claim.epoch,
                sequence=1,
                done=with_done(no_lines_done(3), kept),
            ),
        ),
        files=(
            FileRepair(file_id=OUTPUT, old=OUTPUTS, new=OUTPUTS[:1]),
            FileRepair(file_id=ERRORS, old=(ERROR,), new=(ERROR,) if kept else ()),
        ),
        lost=lost,
    )


class RepairContract:
    """The contract of `repair`."""

    async def test_lines_whose_results_are_gone_run_again(self, store: Store) -> None:
        (_, claimed), batch = await damaged(store)
        assert await store.repair(repair_of(claimed))
        assert await store.get_batch(TENANT, "batch_1") == replace(
            batch, counts=Counts(total=5, completed=2), usage=USAGE, output_bytes=10, error_bytes=0
        )
        file, parts = await store.get_parts(TENANT, OUTPUT)
        assert (file.bytes, parts) == (10, OUTPUTS[:1])
        file, parts = await store.get_parts(TENANT, ERRORS)
        assert (file.bytes, parts, file.growing) == (0, (), True)
        assert await store.list_unreferenced([ERROR.blob]) == [ERROR.blob]
        again = await claim_shard(store, "bert")
        assert again.claim.epoch == 3
        assert not any(is_done(again.shard.done, index) for index in range(3))
        await run_on(store, again)

    async def test_what_is_left_stays_done(self, store: Store) -> None:
        (_, claimed), _ = await damaged(store)
        assert await store.repair(repair_of(claimed, kept=(1,)))
        batch = await store.get_batch(TENANT, "batch_1")
        assert (batch.counts.completed, batch.counts.failed, batch.error_bytes) == (2, 1, 7)
        shard = (await store.get_shards("batch_1"))[1]
        assert [is_done(shard.done, index) for index in range(3)] == [False, True, False]

    async def test_the_holder_writes_no_more(self, store: Store) -> None:
        (_, claimed), _ = await damaged(store)
        await store.repair(repair_of(claimed))
        commit = a_commit(result(claimed, [2], sequence=1), segment="segment-3")
        assert await store.commit(commit) == [Verdict.STALE]
        commit = a_commit(result(claimed, [2], sequence=2), segment="segment-3")
        assert await store.commit(commit) == [Verdict.STALE]
        assert await store.renew([claimed.claim], lease_seconds=LEASE) == [claimed.claim.unit]
        await store.hand_back([claimed.claim], wait_seconds=99)
        assert (await claim_shard(store, "bert")).shard.plan.number == 1

    async def test_a_segment_whose_lines_are_gone_is_not_answered_as_recorded(
        self, store: Store
    ) -> None:
        (_, claimed), _ = await damaged(store)
        await store.repair(repair_of(claimed))
        second = a_commit(
            result(claimed, [0, 1], output=OUTPUTS[1], errors=ERROR, tally=LOST),
            segment="segment-2",
        )
        assert await store.commit(second) == [Verdict.STALE]

    async def test_a_repeat_gives_the_first_answer(self, store: Store) -> None:
        (_, claimed), _ = await damaged(store)
        repair = repair_of(claimed)
        assert await store.repair(repair)
        once = await store.get_batch(TENANT, "batch_1")
        shards = await store.get_shards("batch_1")
        assert await store.repair(repair)
        assert await store.get_shards("batch_1") == shards
        again = await claim_shard(store, "bert")
        assert await store.repair(repair)
        assert await store.get_batch(TENANT, "batch_1") == once
        await store.begin_writer("writer_b", batch_id="batch_1", owner="bert", at=START)
        commit = a_commit(result(again, [0]), segment="segment-3", writer="writer_b")
        assert await store.commit(commit) == [Verdict.ACCEPTED]

    async def test_an_ended_shard_is_open_again(self, store: Store) -> None:
        (ended, claimed), _ = await damaged(store)
        await store.hand_back([claimed.claim])
        repair = Repair(
            batch_id="batch_1",
            shards=(ShardRepair(number=0, epoch=1, sequence=1, done=no_lines_done(2)),),
            files=(FileRepair(file_id=OUTPUT, old=OUTPUTS, new=OUTPUTS[1:]),),
            lost=Tally(completed=2, usage=USAGE),
        )
        assert await store.repair(repair)
        shard, _ = await store.get_shards("batch_1")
        assert (shard.ended, shard.epoch) == (False, 2)
        assert [offer.shards for offer in await list_offers(store)] == [2]
        first, second = await claim_shards(store, "bert")
        assert first.shard.crashes == 0, "its owner had ended it"
        commit = a_commit(result(second, [2]), segment="segment-3")
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        assert (await store.get_batch(TENANT, "batch_1")).status is Status.IN_PROGRESS
        commit = a_commit(result(first, [0, 1]), segment="segment-4")
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        assert (await store.get_batch(TENANT, "batch_1")).status is Status.FINALIZING
        assert ended.shard.plan.lines == 2

    async def test_what_changed_meanwhile_is_left_alone(
        self, store: Store, clock: ManualClock
    ) -> None:
        (_, claimed), batch = await damaged(store)
        repair = repair_of(claimed)
        output = repair.files[0]
        for wrong in (
            replace(repair, batch_id="batch_x"),
            replace(repair, shards=(replace(repair.shards[0], epoch=2),)),
            replace(repair, shards=(replace(repair.shards[0], sequence=2),)),
            replace(repair, shards=(replace(repair.shards[0], number=9),)),
            replace(repair, files=(replace(output, old=OUTPUTS[:1]),)),
            replace(repair, files=(output, replace(repair.files[1], old=OUTPUTS))),
        ):
            assert not await store.repair(wrong)
        assert await store.get_batch(TENANT, "batch_1") == batch
        clock.turn(LEASE)
        taken = await claim_shard(store, "bert")
        assert not await store.repair(repair)
        assert await store.repair(repair_of(taken))

    async def test_a_file_that_grew_meanwhile_is_left_alone(self, store: Store) -> None:
        await planned(store, shards=[("m", 3), ("m", 3), ("m", 3)])
        claimed = await claim_shards(store)
        for number in range(2):
            commit = a_commit(
                result(claimed[number], [0], output=OUTPUTS[number]), segment=str(number)
            )
            await store.commit(commit)
        repair = Repair(
            batch_id="batch_1",
            shards=(ShardRepair(number=0, epoch=1, sequence=1, done=no_lines_done(3)),),
            files=(FileRepair(file_id=OUTPUT, old=OUTPUTS[:1], new=()),),
            lost=Tally(completed=1),
        )
        assert not await store.repair(repair)
        assert (await store.get_parts(TENANT, OUTPUT))[1] == OUTPUTS

    async def test_a_batch_without_open_shards_is_left_alone(self, store: Store) -> None:
        await planned(store)
        await run_whole(store)
        (shard,) = await store.get_shards("batch_1")
        _, parts = await store.get_parts(TENANT, OUTPUT)
        repair = Repair(
            batch_id="batch_1",
            shards=(ShardRepair(number=0, epoch=shard.epoch, sequence=1, done=no_lines_done(3)),),
            files=(FileRepair(file_id=OUTPUT, old=parts, new=()),),
            lost=Tally(completed=3),
        )
        assert not await store.repair(repair)
        assert (await store.get_parts(TENANT, OUTPUT))[1] == parts

    async def test_a_crash_before_a_repair_counts_once_another_takes_over(
        self, store: Store, clock: ManualClock
    ) -> None:
        (_, claimed), _ = await damaged(store)
        assert await store.repair(repair_of(claimed))
        assert [shard.crashes for shard in await store.get_shards("batch_1")] == [0, 0]
        assert (await claim_shard(store, "bert")).shard.crashes == 1
        clock.turn(LEASE)
        assert (await claim_shard(store, "cleo")).shard.is_quarantined

    async def test_who_takes_a_repaired_shard_anew_did_not_crash(self, store: Store) -> None:
        (_, claimed), _ = await damaged(store)
        assert await store.repair(repair_of(claimed))
        again = await claim_shard(store, claimed.claim.owner)
        assert again.shard.crashes == 0
        await store.hand_back([again.claim])
        assert (await claim_shard(store, "bert")).shard.crashes == 0

    async def test_a_repair_of_what_nobody_held_was_no_crash(self, store: Store) -> None:
        (_, claimed), _ = await damaged(store)
        await store.hand_back([claimed.claim])
        assert await store.repair(repair_of(claimed))
        assert (await claim_shard(store, "bert")).shard.crashes == 0

    async def test_deaths_are_remembered(self, store: Store) -> None:
        (_, claimed), _ = await damaged(store)
        await store.record_suspect(claimed.claim, 2)
        await store.record_sandbox_death(claimed.claim, 2)
        await store.repair(repair_of(claimed))
        assert (await claim_shard(store, "bert")).shard.deaths == {2: 1}


async def run_on(store: Store, again: ClaimedShard) -> None:
    """Complete the repaired shard; nothing of the batch may be left to do."""
    await store.begin_writer("writer_b", batch_id="batch_1", owner="bert", at=START)
    part = Part(blob="results/batch_1/writer_b.x", offset=0, length=30)
    commit = a_commit(result(again, [0, 1, 2], output=part), segment="3", writer="writer_b")
    assert await store.commit(commit) == [Verdict.ACCEPTED]
    batch = await store.get_batch(TENANT, "batch_1")
    assert batch.status is Status.FINALIZING
    assert batch.counts == Counts(total=5, completed=5)
    assert (await store.get_parts(TENANT, OUTPUT))[1] == (OUTPUTS[0], part)
