"""The contract of every blob store.

Subclass each class in a test module that has a fixture `blobs`: a fresh, empty, open store. The
append contract asks for a store whose `appends` is true.
"""

# ruff: noqa: D102, PLR2004 -- these are tests: their names are sentences, their numbers plain

import asyncio
from contextlib import suppress

from tidegate.blobs.base import BlobStore
from tidegate.domain.errors import BlobMissing
from tidegate.domain.file import Part

LARGE = bytes(range(256)) * 4096 * 3  # 3 MiB: passes every buffer on the way.


async def expect_missing(blobs: BlobStore, name: str, offset: int = 0, length: int = 1) -> None:
    """Assert that this slice can't be read."""
    try:
        await blobs.read(name, offset, length)
    except BlobMissing as error:
        if name in str(error):
            return
        raise
    raise AssertionError(f"'{name}' could be read")


class WriterContract:
    """The contract of `writer`."""

    async def test_many_small_writes_make_one_blob(self, blobs: BlobStore) -> None:
        async with blobs.writer("uploads/one") as writer:
            for number in range(1000):
                await writer.write(b"%03d" % number)
            assert await writer.finish() == 3000
        assert await blobs.read("uploads/one", 0, 6) == b"000001"
        assert await blobs.read("uploads/one", 2997, 3) == b"999"

    async def test_a_large_blob_comes_back_whole(self, blobs: BlobStore) -> None:
        async with blobs.writer("large") as writer:
            await writer.write(LARGE[:70_000])
            await writer.write(LARGE[70_000:])
            assert await writer.finish() == len(LARGE)
        assert await blobs.read("large", 0, len(LARGE)) == LARGE

    async def test_an_empty_blob_is_a_blob(self, blobs: BlobStore) -> None:
        async with blobs.writer("empty") as writer:
            assert await writer.finish() == 0
        assert await blobs.read("empty", 0, 0) == b""
        assert await blobs.list_names("") == ["empty"]

    async def test_nothing_is_visible_before_finish(self, blobs: BlobStore) -> None:
        async with blobs.writer("later") as writer:
            await writer.write(LARGE)
            await expect_missing(blobs, "later")
            assert await blobs.list_names("") == []
            await writer.finish()
        assert await blobs.list_names("") == ["later"]

    async def test_leaving_without_finish_drops_the_bytes(self, blobs: BlobStore) -> None:
        async with blobs.writer("dropped") as writer:
            await writer.write(LARGE)
        await expect_missing(blobs, "dropped")

    async def test_an_error_inside_drops_the_bytes(self, blobs: BlobStore) -> None:
        with suppress(InterruptedError):
            async with blobs.writer("broken/off") as writer:
                await writer.write(LARGE)
                raise InterruptedError
        await expect_missing(blobs, "broken/off")
        assert await blobs.list_names("") == []

    async def test_a_dropped_blob_can_be_written_again(self, blobs: BlobStore) -> None:
        async with blobs.writer("again") as writer:
            await writer.write(b"the first, unfinished")
        async with blobs.writer("again") as writer:
            await writer.write(b"second")
            assert await writer.finish() == 6
        assert await blobs.read("again", 0, 6) == b"second"

    async def test_two_writers_do_not_mix(self, blobs: BlobStore) -> None:
        async with blobs.writer("a") as first, blobs.writer("b") as second:
            for _ in range(3):
                await first.write(b"a" * 700_000)
                await second.write(b"b" * 700_000)
            assert await first.finish() == await second.finish() == 2_100_000
        assert await blobs.read("a", 0, 2_100_000) == b"a" * 2_100_000
        assert await blobs.read("b", 0, 2_100_000) == b"b" * 2_100_000


class PutContract:
    """The contract of `put`."""

    async def test_a_put_blob_is_readable_immediately(self, blobs: BlobStore) -> None:
        await blobs.put("plans/batch_1/3", b"lines")
        assert await blobs.read("plans/batch_1/3", 0, 5) == b"lines"

    async def test_putting_the_same_again_is_harmless(self, blobs: BlobStore) -> None:
        await blobs.put("same", b"bytes")
        await blobs.put("same", b"bytes")
        assert await blobs.read("same", 0, 5) == b"bytes"
        assert await blobs.list_names("") == ["same"]

    async def test_many_concurrent_puts_are_all_stored(self, blobs: BlobStore) -> None:
        names = [f"many/{number:02d}" for number in range(30)]
        async with asyncio.TaskGroup() as group:
            for name in names:
                group.create_task(blobs.put(name, name.encode()), name=f"put {name}")
        assert await blobs.list_names("many/") == names
        for name in names:
            assert await blobs.read(name, 0, len(name)) == name.encode()


class AppendContract:
    """The contract of `append` of a store that can."""

    async def test_offsets_follow_one_another(self, blobs: BlobStore) -> None:
        assert blobs.appends, "run this contract with a store that appends"
        assert await blobs.append("results/1", b"abc", after=0) == 0
        assert await blobs.append("results/1", b"defg", after=0) == 3
        assert await blobs.append("results/1", b"h", after=0) == 7
        assert await blobs.read("results/1", 2, 5) == b"cdefg"

    async def test_a_large_append_is_stored_whole(self, blobs: BlobStore) -> None:
        await blobs.append("results/1", b"x", after=0)
        assert await blobs.append("results/1", LARGE, after=0) == 1
        assert await blobs.read("results/1", 1, len(LARGE)) == LARGE

    async def test_many_names_grow_concurrently(self, blobs: BlobStore) -> None:
        names = [f"results/{number}" for number in range(100)]
        for turn in range(3):
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        blobs.append(name, name.encode().ljust(20), after=0), name=name
                    )
                    for name in names
                ]
            assert {task.result() for task in tasks} == {turn * 20}
        for name in names:
            assert await blobs.read(name, 0, 60) == name.encode().ljust(20) * 3

    async def test_its_length_follows(self, blobs: BlobStore) -> None:
        await blobs.append("results/1", b"abc", after=0)
        assert await blobs.length("results/1") == 3
        await blobs.append("results/1", b"d", after=0)
        assert await blobs.length("results/1") == 4

    async def test_a_growing_blob_is_listed_and_deleted(self, blobs: BlobStore) -> None:
        await blobs.append("results/1", b"abc", after=0)
        assert await blobs.list_names("results/") == ["results/1"]
        await blobs.delete("results/1")
        await expect_missing(blobs, "results/1")

    async def test_a_blob_that_vanished_is_not_made_again(self, blobs: BlobStore) -> None:
        await blobs.append("results/1", b"abc", after=0)
        await blobs.delete("results/1")
        for _ in range(2):
            await _expect_lost(blobs, after=3)
        await expect_missing(blobs, "results/1")

    async def test_acknowledged_bytes_that_are_gone_are_noticed(self, blobs: BlobStore) -> None:
        await blobs.append("results/1", b"abc", after=0)
        await _expect_lost(blobs, after=4)
        assert await blobs.append("results/1", b"d", after=3) == 3

    async def test_a_deleted_blob_starts_at_offset_zero(self, blobs: BlobStore) -> None:
        await blobs.append("results/1", b"abc", after=0)
        await blobs.delete("results/1")
        assert await blobs.append("results/1", b"de", after=0) == 0
        assert await blobs.read("results/1", 0, 2) == b"de"

    async def test_a_cancelled_append_leaves_later_slices_right(self, blobs: BlobStore) -> None:
        await blobs.append("results/1", b"first", after=0)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(blobs.append("results/1", LARGE, after=0), name="append")
            group.create_task(_cancel(task), name="cancel")
        offset = await blobs.append("results/1", b"third", after=0)
        assert offset in {5, 5 + len(LARGE)}
        assert await blobs.read("results/1", offset, 5) == b"third"
        assert await blobs.read("results/1", 0, 5) == b"first"


async def _expect_lost(blobs: BlobStore, *, after: int) -> None:
    try:
        await blobs.append("results/1", b"more", after=after)
    except BlobMissing:
        return
    raise AssertionError("it wrote under bytes that were acknowledged before")


class NoAppendContract:
    """What a store says that can't append."""

    async def test_append_is_declared_missing_and_refused(self, blobs: BlobStore) -> None:
        assert not blobs.appends, "run this contract with a store that does not append"
        try:
            await blobs.append("results/1", b"abc", after=0)
        except AssertionError:
            assert await blobs.list_names("") == []
        else:
            raise AssertionError("it appended")


class ReadContract:
    """The contract of `read`."""

    async def test_a_slice_is_exact(self, blobs: BlobStore) -> None:
        await blobs.put("blob", b"0123456789")
        assert await blobs.read("blob", 0, 10) == b"0123456789"
        assert await blobs.read("blob", 3, 4) == b"3456"
        assert await blobs.read("blob", 9, 1) == b"9"
        assert await blobs.read("blob", 10, 0) == b""

    async def test_a_slice_beyond_the_end_is_missing(self, blobs: BlobStore) -> None:
        await blobs.put("blob", b"0123456789")
        await expect_missing(blobs, "blob", 0, 11)
        await expect_missing(blobs, "blob", 9, 2)
        await expect_missing(blobs, "blob", 10, 1)
        await expect_missing(blobs, "blob", 11, 0)

    async def test_slices_are_read_together_in_their_order(self, blobs: BlobStore) -> None:
        await blobs.put("a/one", b"0123456789")
        await blobs.put("a/two", b"abcdefghij")
        places = [("a/two", 8, 2), ("a/one", 0, 1), ("a/two", 0, 3), ("a/one", 9, 1)]
        parts = [Part(blob=blob, offset=offset, length=length) for blob, offset, length in places]
        assert await blobs.read_parts(parts) == b"ij0abc9"
        assert await blobs.read_parts(parts[:1]) == b"ij"
        assert await blobs.read_parts([]) == b""

    async def test_no_slice_is_read_if_one_is_missing(self, blobs: BlobStore) -> None:
        await blobs.put("blob", b"0123456789")
        there = Part(blob="blob", offset=0, length=10)
        for gone in (
            Part(blob="nothing", offset=0, length=1),
            Part(blob="blob", offset=9, length=2),
            Part(blob="blob", offset=11, length=1),
        ):
            for parts in ([there, gone], [gone, there]):
                try:
                    await blobs.read_parts(parts)
                except BlobMissing:
                    continue
                raise AssertionError(f"{gone} could be read")

    async def test_ranges_of_a_blob_are_read_in_any_order(self, blobs: BlobStore) -> None:
        await blobs.put("blob", b"0123456789")
        ranges = [(8, 2), (0, 10), (0, 1), (3, 3), (4, 1)]
        expected = [b"89", b"0123456789", b"0", b"345", b"4"]
        assert await blobs.read_ranges("blob", ranges) == expected
        assert await blobs.read_ranges("blob", []) == []

    async def test_no_range_is_read_if_one_is_missing(self, blobs: BlobStore) -> None:
        await blobs.put("blob", b"0123456789")
        for name, gone in (("nothing", (0, 1)), ("blob", (9, 2)), ("blob", (11, 1))):
            for ranges in ([(0, 10), gone], [gone, (0, 10)]):
                try:
                    await blobs.read_ranges(name, ranges)
                except BlobMissing:
                    continue
                raise AssertionError(f"{gone} of '{name}' could be read")

    async def test_an_unknown_name_is_missing(self, blobs: BlobStore) -> None:
        await expect_missing(blobs, "nothing")
        await expect_missing(blobs, "no/such/place", 0, 0)

    async def test_prefixes_and_extensions_of_a_blob_name_are_missing(
        self, blobs: BlobStore
    ) -> None:
        await blobs.put("above/blob", b"0")
        await expect_missing(blobs, "above")
        await expect_missing(blobs, "above/blob/below")


class LengthContract:
    """The contract of `length`."""

    async def test_it_counts_the_bytes(self, blobs: BlobStore) -> None:
        await blobs.put("a/blob", LARGE)
        await blobs.put("a/empty", b"")
        assert await blobs.length("a/blob") == len(LARGE)
        assert await blobs.length("a/empty") == 0

    async def test_the_length_of_an_unknown_name_is_missing(self, blobs: BlobStore) -> None:
        await blobs.put("above/blob", b"0")
        async with blobs.writer("unfinished") as writer:
            await writer.write(LARGE)
            for name in ("nothing", "no/such/place", "above", "above/blob/below", "unfinished"):
                try:
                    await blobs.length(name)
                except BlobMissing:
                    continue
                raise AssertionError(f"'{name}' has a length")


class LeftoversContract:
    """The contract of `remove_leftovers` in one process. What a dead one leaves is each store's."""

    async def test_bytes_of_a_live_writer_are_no_leftovers(self, blobs: BlobStore) -> None:
        await blobs.put("a/finished", b"0")
        async with blobs.writer("a/blob") as first, blobs.writer("b") as second:
            await first.write(LARGE)
            await second.write(LARGE)
            assert await blobs.count_leftovers() == 0
            assert await blobs.remove_leftovers() == 0
            await first.write(LARGE)
            assert await first.finish() == 2 * len(LARGE)
        assert await blobs.read("a/blob", 0, 2 * len(LARGE)) == LARGE * 2
        assert await blobs.remove_leftovers() == 0
        assert await blobs.list_names("") == ["a/blob", "a/finished"]

    async def test_an_empty_store_has_no_leftovers(self, blobs: BlobStore) -> None:
        assert await blobs.count_leftovers() == 0
        assert await blobs.remove_leftovers() == 0


class DeleteContract:
    """The contract of `delete`."""

    async def test_a_deleted_blob_is_missing(self, blobs: BlobStore) -> None:
        await blobs.put("a/gone", b"0")
        await blobs.put("a/kept", b"1")
        await blobs.delete("a/gone")
        await expect_missing(blobs, "a/gone")
        assert await blobs.list_names("") == ["a/kept"]

    async def test_where_all_was_deleted_there_is_room_for_any_name(self, blobs: BlobStore) -> None:
        await blobs.put("a/gone", b"0")
        await blobs.delete("a/gone")
        await blobs.put("a/back", b"1")
        assert await blobs.list_names("") == ["a/back"]
        await blobs.delete("a/back")
        await blobs.put("a", b"2")
        assert await blobs.read("a", 0, 1) == b"2"

    async def test_deleting_nothing_is_no_error(self, blobs: BlobStore) -> None:
        await blobs.delete("nothing")
        await blobs.delete("no/such/place")
        await blobs.put("blob", b"0")
        await blobs.delete("blob")
        await blobs.delete("blob")


class ListContract:
    """The contract of `list_names`."""

    async def test_names_are_sorted_and_begin_with_the_prefix(self, blobs: BlobStore) -> None:
        for name in ("b/2", "a/x", "b/10", "a/x.y/z", "c-c", "b2/1"):
            await blobs.put(name, b"0")
        assert await blobs.list_names("") == ["a/x", "a/x.y/z", "b/10", "b/2", "b2/1", "c-c"]
        assert await blobs.list_names("b") == ["b/10", "b/2", "b2/1"]
        assert await blobs.list_names("b/") == ["b/10", "b/2"]
        assert await blobs.list_names("b/1") == ["b/10"]
        assert await blobs.list_names("a/x.") == ["a/x.y/z"]
        assert await blobs.list_names("d") == []
        assert await blobs.list_names("d/e") == []

    async def test_a_page_begins_behind_a_name_and_is_bounded(self, blobs: BlobStore) -> None:
        names = sorted(
            ["a", "a-b", "a.b", "b/a", "b-a", "b/a.x/y", "b/a/c", "b/b", "c/d/e", "c/d-e"]
        )
        names = [name for name in names if name != "b/a"]
        for name in names:
            await blobs.put(name, b"0")
        for limit in (1, 2, 3, len(names), len(names) + 1):
            found: list[str] = []
            while page := await blobs.list_names("", after=found[-1] if found else "", limit=limit):
                assert len(page) <= limit
                found += page
            assert found == names
        assert await blobs.list_names("b", after="b/a.x/y", limit=9) == ["b/a/c", "b/b"]
        assert await blobs.list_names("b/", after="a", limit=1) == ["b/a.x/y"]
        assert await blobs.list_names("b/", after="c") == []
        assert [page async for page in blobs.name_pages("c/")] == [["c/d-e", "c/d/e"]]
        assert [page async for page in blobs.name_pages("nothing")] == []


class NameContract:
    """What every method makes of names."""

    async def test_malformed_names_are_refused(self, blobs: BlobStore) -> None:
        for name in ("", "/a", "a/", "a//b", "..", "a/../b", "./a", "a b", "a~b", "é", "x" * 201):
            try:
                await blobs.put(name, b"0")
            except AssertionError:
                continue
            raise AssertionError(f"{name!r} was taken")
        assert await blobs.list_names("") == []

    async def test_the_longest_name_works(self, blobs: BlobStore) -> None:
        name = "/".join(["n" * 99, "m" * 100])
        assert len(name) == 200
        await blobs.put(name, b"0")
        assert await blobs.list_names("") == [name]
        assert await blobs.read(name, 0, 1) == b"0"


class LifeContract:
    """The contract of `check` and `aclose`."""

    async def test_check_passes_and_leaves_nothing(self, blobs: BlobStore) -> None:
        await blobs.check()
        assert await blobs.list_names("") == []

    async def test_closing_twice_is_harmless(self, blobs: BlobStore) -> None:
        await blobs.put("blob", b"0")
        await blobs.aclose()
        await blobs.aclose()


async def _cancel(task: asyncio.Task[int]) -> None:
    task.cancel()
