"""The contract of every ledger: files of many parts (PROTOCOL 12). See `stores`."""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from tidegate.domain.file import Part
from tidegate.domain.ledger.values import ClaimedShard, Fragmented
from tidegate.domain.shard import Verdict
from tidegate.stores.base import Store
from tidegate.testing.contract.stores import (
    INPUT,
    START,
    TENANT,
    ManualClock,
    a_batch,
    a_commit,
    claim_shard,
    planned,
    result,
    upload,
)
from tidegate.testing.contract.stores_garbage import begin

OUTPUT = "file-batch_1-output"
KEEP_SECONDS = 60
LINES = 20


def a_part(number: int, length: int = 10) -> Part:
    """Return a part in a blob of its own."""
    return Part(blob=f"results/batch_1/w.{number}", offset=5, length=length)


def one_part(name: str, old: Sequence[Part]) -> list[Part]:
    """Return one part of a new blob, as long as the old ones."""
    return [Part(blob=name, offset=0, length=sum(part.length for part in old))]


async def append(store: Store, claimed: ClaimedShard, number: int, part: Part) -> None:
    """Commit line `number`, which must be the next, with this part."""
    commit = a_commit(
        result(claimed, [number], sequence=number, output=part),
        segment=f"{claimed.shard.batch_id}-{number}",
        batch_id=claimed.shard.batch_id,
    )
    assert await store.commit(commit) == [Verdict.ACCEPTED]


async def fragmented(store: Store, count: int, batch_id: str = "batch_1") -> ClaimedShard:
    """Make a growing result file of `count` parts, each in its own blob."""
    await planned(store, a_batch(batch_id), shards=[("m", LINES)])
    claimed = await claim_shard(store, batch_id=batch_id)
    for number in range(count):
        await append(store, claimed, number, a_part(number))
    return claimed


async def parts_of(store: Store, file_id: str = OUTPUT) -> list[Part]:
    """Return the parts of a visible file."""
    return list((await store.get_parts(TENANT, file_id))[1])


class ListFragmentedContract:
    """The contract of `list_fragmented`."""

    async def test_files_of_many_parts_come_with_the_most_first(self, store: Store) -> None:
        await upload(store)
        for batch_id, count in (("batch_1", 3), ("batch_2", 5), ("batch_3", 3), ("batch_4", 2)):
            await fragmented(store, count, batch_id)
        found = [
            Fragmented(file_id="file-batch_2-output", tenant=TENANT, parts=5, bytes=50),
            Fragmented(file_id="file-batch_1-output", tenant=TENANT, parts=3, bytes=30),
            Fragmented(file_id="file-batch_3-output", tenant=TENANT, parts=3, bytes=30),
        ]
        assert await store.list_fragmented(parts_min=3, limit=3) == found
        assert await store.list_fragmented(parts_min=3, limit=2) == found[:2]
        assert await store.list_fragmented(parts_min=4, limit=9) == found[:1]
        assert await store.list_fragmented(parts_min=6, limit=9) == []

    async def test_hidden_files_are_left_alone(self, store: Store, clock: ManualClock) -> None:
        await upload(store, "file-a", expires_at=START + 1)
        await upload(store, "file-b")
        await store.delete_file(TENANT, "file-b")
        assert [one.file_id for one in await store.list_fragmented(parts_min=1, limit=9)] == [
            "file-a"
        ]
        clock.turn(1)
        assert await store.list_fragmented(parts_min=1, limit=9) == []

    async def test_a_compacted_file_counts_anew(self, store: Store) -> None:
        claimed = await fragmented(store, 4)
        old = (await parts_of(store))[:3]
        new = one_part(await begin(store, "u"), old)
        await store.swap_parts("u", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS)
        (found,) = await store.list_fragmented(parts_min=2, limit=9)
        assert (found.parts, found.bytes) == (2, 40)
        await append(store, claimed, 4, a_part(4))
        assert (await store.list_fragmented(parts_min=3, limit=9))[0].parts == 3


class SwapPartsContract:
    """The contract of `swap_parts`."""

    async def test_the_first_parts_are_replaced(self, store: Store) -> None:
        claimed = await fragmented(store, 5)
        before, old = await store.get_parts(TENANT, OUTPUT)
        new = one_part(await begin(store, "u"), old[:3])
        await append(store, claimed, 5, a_part(5))
        assert await store.swap_parts("u", OUTPUT, old=old[:3], new=new, keep_seconds=KEEP_SECONDS)
        await append(store, claimed, 6, a_part(6, 7))
        file, kept = await store.get_parts(TENANT, OUTPUT)
        assert list(kept) == [*new, *old[3:], a_part(5), a_part(6, 7)]
        assert file == replace(before, bytes=67)
        assert (await store.get_batch(TENANT, "batch_1")).output_bytes == 67

    async def test_some_parts_may_be_kept_as_they_are(self, store: Store) -> None:
        await fragmented(store, 4)
        old = await parts_of(store)
        name = await begin(store, "u")
        new = [old[0], *one_part(name, old[1:3]), old[3]]
        assert await store.swap_parts("u", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS)
        assert await parts_of(store) == new
        blobs = [part.blob for part in old]
        assert await store.list_unreferenced(blobs) == []
        await store.forget_retained(blobs)
        assert await store.list_unreferenced(blobs) == blobs[1:3]

    async def test_touching_new_parts_merge(self, store: Store) -> None:
        await fragmented(store, 3)
        old = await parts_of(store)
        name = await begin(store, "u")
        new = [Part(blob=name, offset=10 * number, length=10) for number in range(3)]
        assert await store.swap_parts("u", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS)
        assert await parts_of(store) == one_part(name, old)

    async def test_a_repeat_of_what_was_done_is_true(self, store: Store) -> None:
        claimed = await fragmented(store, 3)
        old = await parts_of(store)
        new = one_part(await begin(store, "u"), old)
        for number in (3, 4):
            assert await store.swap_parts("u", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS)
            await append(store, claimed, number, a_part(number))
        assert await parts_of(store) == [*new, a_part(3), a_part(4)]
        assert not await store.abandon_upload("u")

    async def test_replaced_blobs_are_kept_for_readers(
        self, store: Store, clock: ManualClock
    ) -> None:
        await fragmented(store, 3)
        old = await parts_of(store)
        new = one_part(await begin(store, "u"), old)
        await store.swap_parts("u", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS)
        blobs = [part.blob for part in old]
        clock.turn(59)
        assert await store.list_unreferenced([*blobs, new[0].blob]) == []
        assert await store.list_retained(limit=9) == []
        clock.turn(1)
        assert await store.list_unreferenced([*blobs, new[0].blob]) == blobs
        assert await store.list_retained(limit=9) == blobs

    async def test_blobs_that_others_need_are_not_retained(
        self, store: Store, clock: ManualClock
    ) -> None:
        await fragmented(store, 3)
        await fragmented(store, 1, "batch_2")  # Its only blob is also the first of the other.
        old = await parts_of(store)
        new = one_part(await begin(store, "u"), old)
        await store.swap_parts("u", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS)
        clock.turn(60)
        assert await store.list_retained(limit=9) == [part.blob for part in old[1:]]

    async def test_other_parts_change_nothing(self, store: Store) -> None:
        await fragmented(store, 3)
        old = await parts_of(store)
        name = await begin(store, "u")
        wrong = [
            old[1:],
            [old[1], old[0]],
            [replace(old[0], length=9)],
            [replace(old[0], offset=6)],
            [replace(old[0], blob="other")],
            [*old, a_part(3)],
        ]
        for parts in wrong:
            new = one_part(name, parts)
            assert not await store.swap_parts(
                "u", OUTPUT, old=parts, new=new, keep_seconds=KEEP_SECONDS
            )
        assert await parts_of(store) == old
        new = one_part(name, old)
        assert await store.swap_parts("u", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS)

    async def test_a_last_part_that_grew_meanwhile_changes_nothing(self, store: Store) -> None:
        claimed = await fragmented(store, 2)
        old = await parts_of(store)
        await append(store, claimed, 2, Part(blob=old[1].blob, offset=15, length=4))
        grown = await parts_of(store)
        assert grown == [old[0], replace(old[1], length=14)]
        new = one_part(await begin(store, "u"), old)
        assert not await store.swap_parts("u", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS)
        assert await parts_of(store) == grown

    async def test_a_hidden_file_is_left_alone(self, store: Store, clock: ManualClock) -> None:
        await upload(store, "file-a", expires_at=START + 1)
        await upload(store, "file-b")
        await store.delete_file(TENANT, "file-b")
        clock.turn(1)
        new = one_part(await begin(store, "u"), [INPUT])
        for file_id in ("file-a", "file-b", "file-unknown"):
            assert not await store.swap_parts(
                "u", file_id, old=[INPUT], new=new, keep_seconds=KEEP_SECONDS
            )
        assert await store.abandon_upload("u"), "it is still pending"

    async def test_an_upload_that_is_not_pending_changes_nothing(self, store: Store) -> None:
        await fragmented(store, 3)
        await upload(store)
        old = await parts_of(store)
        name = await begin(store, "u")
        new = one_part(name, old)
        assert not await store.swap_parts(
            "never", OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS
        )
        assert await store.fence_and_list_deletable([name], idle_seconds=0) == [name]
        for upload_id in ("u", "upload-file-in"):
            assert not await store.swap_parts(
                upload_id, OUTPUT, old=old, new=new, keep_seconds=KEEP_SECONDS
            )
        assert await parts_of(store) == old

    async def test_of_two_at_once_one_wins(self, store: Store) -> None:
        await fragmented(store, 5)
        old = await parts_of(store)
        names = [await begin(store, f"u{number}") for number in range(4)]
        answers = await asyncio.gather(
            *(
                store.swap_parts(
                    f"u{number}",
                    OUTPUT,
                    old=old,
                    new=one_part(name, old),
                    keep_seconds=KEEP_SECONDS,
                )
                for number, name in enumerate(names)
            )
        )
        assert sorted(answers) == [False, False, False, True]
        winner = names[answers.index(True)]
        assert await parts_of(store) == one_part(winner, old)
        losers = [name for name in names if name != winner]
        assert await store.fence_and_list_deletable(names, idle_seconds=0) == losers

    async def test_a_thousand_parts_become_one(self, store: Store) -> None:
        parts = [
            Part(blob=f"uploads/many-{number % 500}", offset=number * 100, length=number + 1)
            for number in range(1000)
        ]
        await store.begin_upload("many", tenant=TENANT, blob="uploads/many", at=START)
        file = replace(await upload(store), id="file-many", bytes=sum(p.length for p in parts))
        await store.finish_upload("many", file, parts)
        new = one_part(await begin(store, "u"), parts)
        assert await store.swap_parts("u", "file-many", old=parts, new=new, keep_seconds=0)
        assert await store.get_parts(TENANT, "file-many") == (file, tuple(new))
        assert len(await store.list_retained(limit=1000)) == 500
