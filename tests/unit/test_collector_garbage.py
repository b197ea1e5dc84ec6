"""Garbage goes by fencing: what somebody may still commit stays, and what went is refused."""

import asyncio

import pytest
from typing_extensions import override

from testkit.scenarios.collector import (
    RecordingObserver,
    collecting,
    collector_of,
    planned,
    results_of,
)
from testkit.scenarios.scenario import at_once, lines, scenario
from tidegate.blobs.base import NAMES_MAX
from tidegate.blobs.memory import MemoryBlobs
from tidegate.cli.gc import summary
from tidegate.collector.settings import Settings
from tidegate.domain.batch import Batch
from tidegate.domain.blob_names import ResultBlob
from tidegate.domain.errors import BlobMissing, ClaimLost
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.values import Want
from tidegate.domain.shard import Verdict
from tidegate.testing.deployment import TENANT, Deployment

QUICK = Settings(
    interval_seconds=1.0, sweep_seconds=1.0, download_seconds_max=0.0, upload_seconds_max=10.0
)


async def begun(deployment: Deployment, data: bytes) -> tuple[str, Part]:
    upload_id = deployment.ids.make("upload_")
    blob = f"uploads/{upload_id}"
    at = deployment.clock.now()
    await deployment.store.begin_upload(upload_id, tenant=TENANT, blob=blob, at=at)
    await deployment.blobs.put(blob, data)
    return upload_id, Part(blob=blob, offset=0, length=len(data))


def file_of(deployment: Deployment, part: Part) -> File:
    return File(
        id=deployment.ids.make("file-"),
        tenant=TENANT,
        filename="late.jsonl",
        purpose=Purpose.BATCH,
        bytes=part.length,
        created_at=deployment.clock.now(),
    )


@scenario
async def test_an_upload_in_flight_stays_and_one_that_was_given_up_bounces(
    deployment: Deployment,
) -> None:
    collector = collector_of(deployment, QUICK)
    quick, part = await begun(deployment, b"012")
    slow, lost = await begun(deployment, b"3456")
    await asyncio.sleep(9.75)
    assert (await collector.collect()).blobs_deleted == 0, "its time is just not over"
    await deployment.store.finish_upload(quick, file_of(deployment, part), [part])
    await asyncio.sleep(0.25)
    assert (await collector.preview()).blobs_deleted == 1
    report = await collector.collect()
    assert (report.blobs_deleted, report.bytes_deleted) == (1, 4)
    with pytest.raises(ClaimLost):
        await deployment.store.finish_upload(slow, file_of(deployment, lost), [lost])
    assert await deployment.blobs.list_names("") == [part.blob]


@scenario
async def test_a_writer_that_was_stopped_bounces_off_a_sweep(deployment: Deployment) -> None:
    store, collector = deployment.store, collector_of(deployment, QUICK)
    batch = await deployment.submit(lines(2))
    await planned(deployment, batch, shards=1)
    [claimed] = await store.claim_shards(
        "proc", [Want(batch_id=batch.id, model="m", limit=1)], lease_seconds=5.0
    )
    [held] = claimed.shards
    at = deployment.clock.now()
    await store.begin_writer("writer", batch_id=batch.id, owner="proc", at=at)
    name = ResultBlob(batch_id=batch.id, writer="writer", label="results").name
    await deployment.blobs.append(name, b"two lines, say\n", after=0)
    assert (await collector.collect()).blobs_deleted == 0, "it may still commit"
    await asyncio.sleep(5.0)
    report = await collector.collect()
    assert (report.blobs_deleted, report.bytes_deleted) == (1, 15)
    assert await results_of(deployment, batch, held, "writer") == [Verdict.STALE]
    async with deployment.processor(at_once):
        await holds(deployment, await deployment.end_of(batch.id), 2)


async def holds(deployment: Deployment, batch: Batch, count: int) -> None:
    """Assert that every line has its one result, and that no row points to nothing."""
    assert len(await deployment.results(batch)) == count
    report = await collector_of(deployment, QUICK).preview()
    assert (report.drift, report.damages) == (0, ())


@scenario
async def test_two_collectors_beside_a_running_batch_harm_nothing(deployment: Deployment) -> None:
    first, second = RecordingObserver(), RecordingObserver()
    async with collecting(deployment, QUICK, first), collecting(deployment, QUICK, second):
        batches = [await deployment.submit(lines(40)) for _ in range(3)]
        async with deployment.processor(at_once), deployment.processor(at_once):
            ended = [await deployment.end_of(batch.id) for batch in batches]
        await asyncio.sleep(3.0)
    for batch in ended:
        assert batch.counts.completed == 40
        await holds(deployment, batch, 40)
    assert first.damages == second.damages == []
    # Plans went with their batches; inputs and results are all that is left.
    names = await deployment.blobs.list_names("")
    assert {name.partition("/")[0] for name in names} == {"uploads", "results"}


@scenario
async def test_what_is_left_of_a_lost_planning_and_of_a_batch_goes(deployment: Deployment) -> None:
    batch = await deployment.submit(lines(3))
    await deployment.blobs.put(f"plans/{batch.id}/1", b"a plan that nobody recorded")
    collector = collector_of(deployment, QUICK)
    held = await deployment.store.claim_planning("proc", lease_seconds=5.0)
    assert held is not None
    assert held.claim.epoch == 1
    assert (await collector.collect()).blobs_deleted == 0, "its planner is alive"
    await asyncio.sleep(5.0)
    assert (await collector.collect()).blobs_deleted == 1
    async with deployment.processor(at_once):
        batch = await deployment.end_of(batch.id)
    await deployment.blobs.put(f"plans/{batch.id}/9", b"left by a closer that died")
    await deployment.blobs.put(f"results/{batch.id}/someone.results", b"left as well")
    await deployment.blobs.put("results/batch_unknown/someone.results", b"of a dropped batch")
    assert (await collector.collect()).blobs_deleted == 3
    await holds(deployment, batch, 3)


@scenario
async def test_a_name_of_no_known_form_is_reported_and_stays(deployment: Deployment) -> None:
    observer = RecordingObserver()
    collector = collector_of(deployment, QUICK, observer)
    names = ["backup.tar", "plans/b", "results/b/noform", "uploads/a/b"]
    for name in names:
        await deployment.blobs.put(name, b"0")
    for report in (await collector.preview(), await collector.collect()):
        assert report.unknown_blobs == 4
        assert report.unknown_blob_names == tuple(names)
        assert report.blobs_deleted == 0
    assert observer.unknown_blobs == names
    assert await deployment.blobs.list_names("") == names


@scenario
async def test_a_deleted_blob_is_forgotten_though_the_collector_died_before(
    deployment: Deployment,
) -> None:
    file_id = await deployment.upload(b"0123")
    await deployment.store.delete_file(TENANT, file_id)
    [blob] = await deployment.blobs.list_names("")
    await deployment.store.release_files([file_id], keep_seconds=0)
    await deployment.blobs.delete(blob)
    await collector_of(deployment, QUICK).collect()
    assert await deployment.store.list_retained(limit=10) == []
    with pytest.raises(BlobMissing):
        await deployment.blobs.length(blob)


@scenario
async def test_looking_changes_nothing(deployment: Deployment) -> None:
    collector = collector_of(deployment, QUICK)
    file_id = await deployment.upload(b"0123")
    await deployment.store.delete_file(TENANT, file_id)
    await begun(deployment, b"never finished")
    await deployment.blobs.put("an-unknown-name", b"0")
    batch = await deployment.submit(lines(3), window_seconds=60.0)
    async with deployment.processor(at_once):
        await deployment.end_of(batch.id)
    await asyncio.sleep(3_000_000.0)
    before = repr(vars(deployment.store)), repr(vars(deployment.blobs))
    report = await collector.preview()
    assert (repr(vars(deployment.store)), repr(vars(deployment.blobs))) == before
    assert report.files_released == report.blobs_deleted == report.batches_dropped == 1
    done = await collector.collect()
    assert (done.files_released, done.batches_dropped) == (1, 1)
    assert (repr(vars(deployment.store)), repr(vars(deployment.blobs))) != before


class Littered(MemoryBlobs):
    """Lists names that no blob can have, as a person or a backup leaves them in a directory."""

    names = ("results/b/w.a copy", "uploads/notes (1)", f"uploads/{'x' * 200}", "uploads/\udcff")

    @override
    async def list_names(
        self, prefix: str, *, after: str = "", limit: int = NAMES_MAX
    ) -> list[str]:
        names = [*await super().list_names(prefix), *self.names]
        return sorted(name for name in names if name > after)[:limit]


@scenario
async def test_a_name_that_no_blob_can_have_is_reported_and_stays(deployment: Deployment) -> None:
    deployment.blobs = Littered(appends=True)
    observer = RecordingObserver()
    collector = collector_of(deployment, QUICK, observer)
    for report in (await collector.preview(), await collector.collect()):
        assert report.unknown_blob_names == Littered.names
        assert report.blobs_deleted == 0
        "\n".join(summary(report, dry=True)).encode()
    assert observer.unknown_blobs == list(Littered.names)
