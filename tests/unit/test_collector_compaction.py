"""Compaction keeps every byte at its offset: before, in the midst, and after."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings, strategies as st

from testkit.scenarios.collector import (
    RecordingObserver,
    collecting,
    collector_of,
    parts_of,
    scattered,
)
from testkit.scenarios.scenario import fails, lines, meets, scenario
from tidegate.blobs.memory import MemoryBlobs
from tidegate.collector.settings import Settings
from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.domain.file import Part, cut
from tidegate.testing.deployment import TENANT, Deployment, model_of, ok
from tidegate.testing.loop import in_virtual_time
from tidegate.upstreams.base import Call, Reply

SMALL = Settings(
    interval_seconds=1.0,
    sweep_seconds=1.0,
    download_seconds_max=5.0,
    compact_parts_min=4,
    compact_bytes_max=64,
)


async def read(deployment: Deployment, parts: Sequence[Part], start: int, length: int) -> bytes:
    slices = cut(parts, start, length)
    return b"".join([await deployment.blobs.read(p.blob, p.offset, p.length) for p in slices])


@settings(max_examples=60, deadline=None)
@given(
    pieces=st.lists(st.binary(min_size=1, max_size=40), min_size=1, max_size=30),
    bytes_max=st.integers(1, 200),
    seed=st.integers(0, 99),
)
@in_virtual_time
async def test_any_range_equals_the_slice_of_the_whole(
    pieces: list[bytes], bytes_max: int, seed: int
) -> None:
    chance = random.Random(seed)
    whole = b"".join(pieces)

    deployment = Deployment.make()
    file_id = await scattered(deployment, pieces)
    chosen = Settings(compact_parts_min=2, compact_bytes_max=bytes_max, download_seconds_max=9)
    before, old = await deployment.store.get_parts(TENANT, file_id)

    async def agree(parts: Sequence[Part]) -> None:
        for _ in range(4):
            start = chance.randrange(len(whole) + 1)
            length = chance.randrange(len(whole) + 1 - start)
            found = await read(deployment, parts, start, length)
            assert found == whole[start : start + length]

    async def reading() -> None:
        # A reader that looked earlier goes on with what it saw; another one looks again.
        for _ in range(20):
            await agree(old)
            await agree(await parts_of(deployment, file_id))
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        group.create_task(reading(), name="reader")
        for _ in range(3):
            await collector_of(deployment, chosen).collect()
    after, new = await deployment.store.get_parts(TENANT, file_id)
    assert after == before
    assert len(new) <= len(old)
    await agree(new)
    await agree(old)
    assert await deployment.content(file_id) == whole


@scenario
async def test_many_parts_become_few_and_the_old_blob_goes_in_time(deployment: Deployment) -> None:
    file_id = await scattered(deployment, [bytes([65 + n]) * 8 for n in range(20)])
    [old] = await deployment.blobs.list_names("")
    collector = collector_of(deployment, SMALL)
    preview = await collector.preview()
    assert (preview.files_compacted, preview.parts_merged) == (1, 17)
    report = await collector.collect()
    assert (report.files_compacted, report.parts_merged) == (1, 17)
    assert [part.length for part in await parts_of(deployment, file_id)] == [64, 64, 32]
    assert (await collector.collect()).files_compacted == 0
    assert old in await deployment.blobs.list_names(""), "somebody may be reading it"
    await asyncio.sleep(5.0)
    assert (await collector.collect()).blobs_deleted == 1
    assert old not in await deployment.blobs.list_names("")
    assert await deployment.content(file_id) == b"".join(bytes([65 + n]) * 8 for n in range(20))


@scenario
async def test_what_is_large_enough_stays_and_its_neighbours_are_joined(
    deployment: Deployment,
) -> None:
    lengths = [8, 40, 8, 8, 8, 64, 100, 8, 8]
    file_id = await scattered(deployment, [bytes(length) for length in lengths])
    report = await collector_of(deployment, SMALL).collect()
    assert (report.files_compacted, report.parts_merged) == (1, 3)
    joined = [part.length for part in await parts_of(deployment, file_id)]
    assert joined == [8, 40, 24, 64, 100, 16]
    assert await deployment.content(file_id) == bytes(sum(lengths))


@scenario
async def test_a_file_just_below_the_bound_is_left_alone(deployment: Deployment) -> None:
    await scattered(deployment, [b"0"] * 3)
    assert (await collector_of(deployment, SMALL).collect()).files_compacted == 0
    await scattered(deployment, [b"0"] * 4)
    assert (await collector_of(deployment, SMALL).collect()).files_compacted == 1


async def paced(call: Call) -> Reply:
    await asyncio.sleep(0.5)
    return ok(model_of(call))


@scenario
async def test_a_growing_file_is_compacted_while_it_grows(deployment: Deployment) -> None:
    deployment.blobs = MemoryBlobs()  # Without appending each commit is a part.
    seen: dict[str, bytes] = {}
    few = Settings(
        interval_seconds=0.2,
        sweep_seconds=0.2,
        download_seconds_max=0.5,
        compact_parts_min=3,
        compact_bytes_max=100_000,
    )
    batch = await deployment.submit([*lines(200, "one", "one"), *lines(200, "two", "two")])
    told_by = RecordingObserver()
    async with collecting(deployment, few, told_by) as collector:
        async with deployment.processor(paced), deployment.processor(paced):
            while not (now := await deployment.get(batch.id)).is_terminal:
                if now.output_file_id is not None and now.output_bytes:
                    content = await deployment.content(now.output_file_id)
                    before = seen.get("output", b"")
                    assert content[: len(before)] == before, "a byte changed its place"
                    seen["output"] = content
                await asyncio.sleep(0.2)
        await asyncio.sleep(2.0)
        report = await collector.preview()
    assert now.counts.completed == 400
    assert len(await deployment.results(now)) == 400
    assert (report.drift, told_by.errors) == (0, [])
    parts = await parts_of(deployment, now.output_file_id or "")
    assert any(part.blob.startswith("uploads/") for part in parts), "nothing was compacted"


@scenario
async def test_the_collector_that_loses_the_race_removes_its_copy(deployment: Deployment) -> None:
    file_id = await scattered(deployment, [b"01234567"] * 8)
    first, second = collector_of(deployment, SMALL), collector_of(deployment, SMALL)
    async with asyncio.TaskGroup() as group:
        group.create_task(first.collect(), name="first")
        group.create_task(second.collect(), name="second")
    parts = await parts_of(deployment, file_id)
    assert [part.length for part in parts] == [64]
    uploads = await deployment.blobs.list_names("uploads/")
    assert len(uploads) == 2, "the old blob and one copy"
    assert await deployment.content(file_id) == b"01234567" * 8


@scenario
async def test_a_file_that_is_deleted_meanwhile_leaves_no_copy(deployment: Deployment) -> None:
    file_id = await scattered(deployment, [b"01234567"] * 8)
    files = deployment.store._files  # type: ignore[attr-defined]

    def delete() -> None:
        files[file_id].deleted = True

    meets(deployment.blobs, "read", delete)
    assert (await collector_of(deployment, SMALL).collect()).files_compacted == 0
    [name] = await deployment.blobs.list_names("")
    assert await deployment.blobs.length(name) == 72


@pytest.mark.parametrize("error", [StorageFull("no room"), StoreUnavailable("no answer")])
@scenario
async def test_what_is_held_up_is_done_by_a_later_round(
    deployment: Deployment, error: Exception
) -> None:
    file_id = await scattered(deployment, [b"01234567"] * 8)
    observer = RecordingObserver()
    port = deployment.blobs if isinstance(error, StorageFull) else deployment.store
    name = "read" if isinstance(error, StorageFull) else "swap_parts"
    fails(port, name, error, until=1.0)
    collector = collector_of(deployment, SMALL, observer)
    report = await collector.collect()
    assert report.held_up == (str(error),)
    assert observer.errors == [error]
    await asyncio.sleep(1.0)
    assert (await collector.collect()).files_compacted == 1
    assert await deployment.content(file_id) == b"01234567" * 8
