"""The contract of every ledger: commits (PROTOCOL 8 to 12). See `stores` for use."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from dataclasses import replace

from tidegate.domain.batch import Counts, Status
from tidegate.domain.errors import NotFound
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.shard import Tally, Verdict, is_done
from tidegate.domain.usage import Usage
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    LEASE,
    START,
    TENANT,
    ManualClock,
    a_commit,
    claim_finalizing,
    claim_shard,
    claim_shards,
    planned,
    refusal,
    result,
)

OUTPUT = "file-batch_1-output"
ERRORS = "file-batch_1-error"


class CommitContract:
    """The contract of `commit` about lines (PROTOCOL 8)."""

    async def test_lines_counts_and_usage_add_up(self, store: Store) -> None:
        before = await planned(store, shards=[("m", 4), ("m", 3)])
        first, second = await claim_shards(store)
        usage = Usage(input_tokens=5, cached_tokens=1, output_tokens=7, reasoning_tokens=2)
        commit = a_commit(
            result(first, [0, 3], tally=Tally(completed=1, failed=1, usage=usage)),
            result(second, [1], tally=Tally(failed=1, expired=1, usage=usage)),
        )
        assert await store.commit(commit) == [Verdict.ACCEPTED] * 2
        assert await store.get_batch(TENANT, "batch_1") == replace(
            before, counts=Counts(total=7, completed=1, failed=2, expired=1), usage=usage + usage
        )

    async def test_a_repeated_segment_is_accepted_and_adds_nothing(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        part = Part(blob="results", offset=0, length=10)
        commit = a_commit(result(claimed, [0], output=part))
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        once = await store.get_batch(TENANT, "batch_1")
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        assert await store.get_batch(TENANT, "batch_1") == once
        assert (await store.get_parts(TENANT, OUTPUT))[1] == (part,)

    async def test_a_repeat_after_the_end_is_accepted(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        commit = a_commit(result(claimed, [0, 1, 2]))
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        ended = await store.finish_batch((await claim_finalizing(store)).claim, at=START)
        clock.turn(LEASE)
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        assert await store.get_batch(TENANT, "batch_1") == ended

    async def test_a_repeat_is_accepted_though_another_took_over(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        commit = a_commit(result(await claim_shard(store), [0]))
        await store.commit(commit)
        clock.turn(LEASE)
        new = await claim_shard(store, "bert")
        assert await store.commit(commit) == [Verdict.ACCEPTED]
        assert new.shard.sequence == 1

    async def test_a_replaced_holder_is_stale(self, store: Store, clock: ManualClock) -> None:
        await planned(store)
        old = await claim_shard(store, "anna")
        clock.turn(LEASE)
        new = await claim_shard(store, "bert")
        assert await store.commit(a_commit(result(old, [0]))) == [Verdict.STALE]
        counts = (await store.get_batch(TENANT, "batch_1")).counts
        assert (counts.completed, counts.failed) == (0, 0)
        commit = a_commit(result(new, [0]), segment="segment-2")
        assert await store.commit(commit) == [Verdict.ACCEPTED]

    async def test_a_stopped_holder_whom_nobody_replaced_may_commit(
        self, store: Store, clock: ManualClock
    ) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        clock.turn(LEASE * 10)
        assert await store.commit(a_commit(result(claimed, [0]))) == [Verdict.ACCEPTED]

    async def test_a_sequence_that_does_not_follow_is_stale(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        assert await store.commit(a_commit(result(claimed, [0], sequence=1))) == [Verdict.STALE]
        assert await store.commit(a_commit(result(claimed, [0]))) == [Verdict.ACCEPTED]
        again = a_commit(result(claimed, [1]), segment="segment-2")
        assert await store.commit(again) == [Verdict.STALE]
        follows = a_commit(result(claimed, [1], sequence=1), segment="segment-3")
        assert await store.commit(follows) == [Verdict.ACCEPTED]

    async def test_a_line_that_is_done_is_refused(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.commit(a_commit(result(claimed, [1])))
        again = a_commit(result(claimed, [0, 1], sequence=1), segment="segment-2")
        assert await store.commit(again) == [Verdict.REPEATED_LINE]
        counts = (await store.get_batch(TENANT, "batch_1")).counts
        assert counts.completed == 1

    async def test_an_ended_shard_is_ended(self, store: Store) -> None:
        await planned(store, shards=[("m", 1), ("m", 1)])
        first, _ = await claim_shards(store)
        await store.commit(a_commit(result(first, [0])))
        late = a_commit(result(first, [0], sequence=1), segment="segment-2")
        assert await store.commit(late) == [Verdict.ENDED]

    async def test_a_batch_that_has_ended_takes_nothing(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.commit(a_commit(result(claimed, [0, 1, 2])))
        ended = await store.finish_batch((await claim_finalizing(store)).claim, at=START)
        late = a_commit(result(claimed, [0], sequence=1), segment="segment-2")
        assert await store.commit(late) == [Verdict.ENDED]
        assert await store.get_batch(TENANT, "batch_1") == ended

    async def test_each_shard_is_judged_alone(self, store: Store, clock: ManualClock) -> None:
        await planned(store, shards=[("m", 1), ("m", 2), ("m", 2)])
        ended, stale, good = await claim_shards(store)
        await store.commit(a_commit(result(ended, [0])))
        await store.hand_back([stale.claim])
        await claim_shard(store, "bert")
        unknown = replace(result(good, [0]), number=99)
        parts = [Part(blob="results", offset=10 * n, length=10) for n in range(4)]
        commit = a_commit(
            result(ended, [0], sequence=1, output=parts[0]),
            result(stale, [0], output=parts[1]),
            result(good, [0], output=parts[2]),
            replace(unknown, output=parts[3]),
            segment="segment-2",
        )
        assert await store.commit(commit) == [
            Verdict.ENDED,
            Verdict.STALE,
            Verdict.ACCEPTED,
            Verdict.STALE,
        ]
        batch = await store.get_batch(TENANT, "batch_1")
        assert (batch.counts.completed, batch.output_bytes) == (2, 10)
        assert (await store.get_parts(TENANT, OUTPUT))[1] == (parts[2],)
        clock.turn(LEASE)
        open_shards = await claim_shards(store)
        assert [is_done(one.shard.done, 0) for one in open_shards] == [False, True]

    async def test_an_unknown_batch_is_stale(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        commit = a_commit(result(claimed, [0]), batch_id="batch_x")
        assert await store.commit(commit) == [Verdict.STALE]
        assert await store.commit(a_commit()) == []

    async def test_of_concurrent_commits_on_one_sequence_one_is_accepted(
        self, store: Store
    ) -> None:
        await planned(store, shards=[("m", 20)])
        claimed = await claim_shard(store)
        verdicts = await asyncio.gather(
            *(store.commit(a_commit(result(claimed, [n]), segment=f"s{n}")) for n in range(20))
        )
        assert sorted(verdicts) == [[Verdict.ACCEPTED]] + [[Verdict.STALE]] * 19
        assert (await store.get_batch(TENANT, "batch_1")).counts.completed == 1

    async def test_concurrent_commits_of_many_shards_all_count(self, store: Store) -> None:
        await planned(store, shards=[("m", 2)] * 20)
        claimed = await claim_shards(store)
        await asyncio.gather(
            *(
                store.commit(a_commit(result(one, [0, 1]), segment=f"s{one.shard.plan.number}"))
                for one in claimed
            )
        )
        batch = await store.get_batch(TENANT, "batch_1")
        assert (batch.counts.completed, batch.status) == (40, Status.FINALIZING)
        assert batch.version == 2

    async def test_the_last_line_moves_the_batch_on(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        await store.commit(a_commit(result(claimed, [0, 2])))
        await store.commit(
            a_commit(result(claimed, [1], sequence=1), segment="segment-2", at=START + 9)
        )
        batch = await store.get_batch(TENANT, "batch_1")
        assert (batch.status, batch.finalizing_at) == (Status.FINALIZING, START + 9)


class CommitPartsContract:
    """The contract of `commit` about the files it lengthens (PROTOCOL 12)."""

    async def test_a_file_is_created_with_its_first_part(self, store: Store) -> None:
        await planned(store)
        claimed = await claim_shard(store)
        part = Part(blob="results", offset=0, length=30)
        await store.commit(a_commit(result(claimed, [0], output=part), at=START + 4))
        file = File(
            id=OUTPUT,
            tenant=TENANT,
            filename="batch_1_output.jsonl",
            purpose=Purpose.BATCH_OUTPUT,
            bytes=30,
            created_at=START + 4,
            batch_id="batch_1",
            growing=True,
        )
        assert await store.get_parts(TENANT, OUTPUT) == (file, (part,))
        await refusal(store.get_file(TENANT, ERRORS), NotFound)
        errors = Part(blob="results", offset=30, length=12)
        await store.commit(
            a_commit(result(claimed, [1], sequence=1, errors=errors), segment="2", at=START + 5)
        )
        file = replace(
            file, id=ERRORS, filename="batch_1_error.jsonl", bytes=12, created_at=START + 5
        )
        assert await store.get_parts(TENANT, ERRORS) == (file, (errors,))
        batch = await store.get_batch(TENANT, "batch_1")
        assert (batch.output_bytes, batch.error_bytes) == (30, 12)
        await refusal(store.get_file("tenant-two", OUTPUT), NotFound)

    async def test_parts_are_appended_in_the_order_given(self, store: Store) -> None:
        await planned(store, shards=[("m", 2)] * 3)
        claimed = await claim_shards(store)
        parts = [Part(blob=f"results/{n}", offset=0, length=n + 1) for n in range(4)]
        await store.commit(
            a_commit(
                result(claimed[2], [0], output=parts[0]),
                result(claimed[0], [0], output=parts[1]),
                result(claimed[1], [0], output=parts[2]),
            )
        )
        await store.commit(
            a_commit(result(claimed[0], [1], sequence=1, output=parts[3]), segment="2")
        )
        file, kept = await store.get_parts(TENANT, OUTPUT)
        assert kept == tuple(parts)
        assert file.bytes == 1 + 2 + 3 + 4

    async def test_touching_slices_merge_over_commits_too(self, store: Store) -> None:
        await planned(store, shards=[("m", 3), ("m", 1)])
        first, second = await claim_shards(store)
        slices = [Part(blob="results", offset=offset, length=5) for offset in (0, 5, 10, 20)]
        await store.commit(
            a_commit(result(first, [0], output=slices[0]), result(second, [0], output=slices[1]))
        )
        await store.commit(a_commit(result(first, [1], sequence=1, output=slices[2]), segment="2"))
        await store.commit(a_commit(result(first, [2], sequence=2, output=slices[3]), segment="3"))
        file, kept = await store.get_parts(TENANT, OUTPUT)
        assert kept == (Part(blob="results", offset=0, length=15), slices[3])
        assert file.bytes == 20

    async def test_a_thousand_parts_come_back_in_order(self, store: Store) -> None:
        await planned(store, shards=[("m", 1)] * 1000)
        claimed = await claim_shards(store, limit=1000)
        parts = [Part(blob=f"results/{n % 7}", offset=n * 100, length=n + 1) for n in range(1000)]
        commit = a_commit(
            *(result(one, [0], output=part) for one, part in zip(claimed, parts, strict=True))
        )
        await store.commit(commit)
        file, kept = await store.get_parts(TENANT, OUTPUT)
        assert kept == tuple(parts)
        assert file.bytes == sum(part.length for part in parts)
