"""Lost bytes: a running batch runs their lines again; every other loss is reported."""

import asyncio
from dataclasses import replace

import pytest

from testkit.scenarios.collector import RecordingObserver, collector_of, parts_of
from testkit.scenarios.scenario import at_once, lines, scenario
from tidegate.blobs.memory import MemoryBlobs
from tidegate.collector.report import Damage
from tidegate.collector.settings import Settings
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import BlobMissing, BlobUnreadable
from tidegate.testing.deployment import Answer, Deployment, model_of, ok, request_line
from tidegate.upstreams.base import Call, Reply

SETTINGS = Settings(download_seconds_max=0.0)
COUNT = 1_100  # Three shards.


def answering(free: asyncio.Event, *, until: int) -> Answer:
    """Answer lines below `until` at once (each tenth badly), and the others when free."""

    async def answer(call: Call) -> Reply:
        number = int(call.body.partition(b"number ")[2].partition(b".")[0])
        if number >= until:
            await free.wait()
        if number % 10 == 0:
            return Reply(status=400, headers={}, body=b'{"error":{"message":"no"}}')
        return ok(model_of(call), tokens=number)

    return answer


async def begun(deployment: Deployment) -> Batch:
    """Run a batch up to its 700th line; then its processor goes."""
    free = asyncio.Event()
    texts = [request_line(f"line-{n}", content=f"number {n:04d}.") for n in range(COUNT)]
    batch = await deployment.submit(texts)
    async with deployment.processor(answering(free, until=700)):
        batch = await reached(deployment, batch, 700)
    assert (batch.counts.completed, batch.counts.failed) == (630, 70)
    return batch


async def reached(deployment: Deployment, batch: Batch, count: int) -> Batch:
    """Wait until this many lines are done, for an hour at most."""
    for _ in range(3_600):
        batch = await deployment.get(batch.id)
        if batch.counts.completed + batch.counts.failed >= count:
            return batch
        await asyncio.sleep(1.0)
    raise AssertionError(f"only {batch.counts} were done")


async def finished(deployment: Deployment, batch: Batch) -> None:
    """Run the rest, and hold the batch to all that it promises."""
    free = asyncio.Event()
    free.set()
    async with deployment.processor(answering(free, until=0)):
        batch = await deployment.end_of(batch.id)
    assert batch.status is Status.COMPLETED
    assert (batch.counts.completed, batch.counts.failed) == (990, 110)
    results = await deployment.results(batch)
    assert sorted(results) == sorted(f"line-{n}" for n in range(COUNT))
    assert batch.usage.input_tokens == sum(n for n in range(COUNT) if n % 10)
    preview = await collector_of(deployment, SETTINGS).preview()
    assert (preview.drift, preview.damages) == (0, ())


async def delete(deployment: Deployment, *kinds: str) -> list[str]:
    """Delete all blobs of these kinds, as an accident would; return their names."""
    names = await deployment.blobs.list_names("results/")
    gone = [name for name in names if name.endswith(kinds)]
    assert gone
    for name in gone:
        await deployment.blobs.delete(name)
    return gone


@pytest.mark.parametrize(
    ("kinds", "lost"), [((".results",), 630), ((".errors",), 70), ((".results", ".errors"), 700)]
)
@scenario
async def test_lines_whose_results_are_gone_run_again(
    deployment: Deployment, kinds: tuple[str, ...], lost: int
) -> None:
    batch = await begun(deployment)
    gone = await delete(deployment, *kinds)
    observer = RecordingObserver()
    collector = collector_of(deployment, SETTINGS, observer)
    preview = await collector.preview()
    assert (preview.drift, preview.lines_rerun) == (len(gone), 0)
    assert {damage.batches for damage in preview.damages} == {(batch.id,)}
    report = await collector.collect()
    assert (report.drift, report.lines_rerun) == (0, lost)
    assert {damage.repaired for damage in report.damages} == {True}
    assert observer.rerun == {batch.id: lost}
    assert (observer.damages, observer.drifting) == ([], [0])
    now = await deployment.get(batch.id)
    assert now.counts.completed + now.counts.failed == 700 - lost
    assert (await collector.collect()).damages == ()
    await finished(deployment, batch)


@scenario
async def test_of_a_short_blob_the_whole_lines_survive(deployment: Deployment) -> None:
    batch = await begun(deployment)
    parts = await parts_of(deployment, batch.output_file_id or "")
    part = max(parts, key=lambda part: part.length)
    content = await deployment.blobs.read(part.blob, part.offset, part.length)
    length = content.index(b'"custom_id"', part.length // 2) + 3
    lost = content[length:].count(b"\n")
    assert isinstance(deployment.blobs, MemoryBlobs)
    blobs = deployment.blobs._blobs
    blobs[part.blob] = blobs[part.blob][: part.offset + length]
    report = await collector_of(deployment, SETTINGS).collect()
    assert (report.drift, report.lines_rerun) == (0, lost)
    left = await parts_of(deployment, batch.output_file_id or "")
    cut = replace(part, length=content[:length].rindex(b"\n") + 1)
    assert left == tuple(cut if one == part else one for one in parts)
    await finished(deployment, batch)


@scenario
async def test_a_running_processor_loses_nothing_when_its_batch_is_repaired(
    deployment: Deployment,
) -> None:
    batch = await begun(deployment)
    free = asyncio.Event()
    collector = collector_of(deployment, SETTINGS)
    results = await deployment.blobs.list_names("results/")
    gone = [name for name in results if name.endswith(".results")]
    async with deployment.processor(answering(free, until=900)):
        await reached(deployment, batch, 900)
        for name in gone:
            await deployment.blobs.delete(name)
        report = await collector.collect()
        assert (report.drift, report.lines_rerun) == (0, 630)
        free.set()
        await deployment.end_of(batch.id)
    await finished(deployment, batch)


@scenario
async def test_a_processor_whose_own_results_vanish_writes_elsewhere(
    deployment: Deployment,
) -> None:
    free = asyncio.Event()
    texts = [request_line(f"line-{n}", content=f"number {n:04d}.") for n in range(COUNT)]
    batch = await deployment.submit(texts)
    async with deployment.processor(answering(free, until=1_050)):
        await reached(deployment, batch, 1_050)
        gone = await delete(deployment, ".results", ".errors")
        report = await collector_of(deployment, SETTINGS).collect()
        assert report.lines_rerun == 1_050
        free.set()
        batch = await deployment.end_of(batch.id)
    await finished(deployment, batch)
    for file_id in (batch.output_file_id, batch.error_file_id):
        used = {part.blob for part in await parts_of(deployment, file_id or "")}
        assert not used & set(gone)


@scenario
async def test_without_the_plan_nothing_is_guessed(deployment: Deployment) -> None:
    batch = await begun(deployment)
    observer = RecordingObserver()
    assert batch.plan_blob is not None
    plan = await deployment.blobs.length(batch.plan_blob)
    await deployment.blobs.delete(batch.plan_blob)
    gone = await delete(deployment, ".results")
    report = await collector_of(deployment, SETTINGS, observer).collect()
    assert (report.drift, report.lines_rerun) == (1 + len(gone), 0)
    assert observer.damages == [damage.blob for damage in report.damages]
    assert observer.drifting == [1 + len(gone)]
    expected = Damage(blob=batch.plan_blob, needed=plan, found=None, batches=(batch.id,))
    assert report.damages[0] == expected
    assert (await deployment.get(batch.id)).counts == batch.counts


@scenario
async def test_counts_that_do_not_agree_are_left_alone(deployment: Deployment) -> None:
    batch = await begun(deployment)
    job = deployment.store._jobs[batch.id]  # type: ignore[attr-defined]
    job.batch = replace(batch, counts=replace(batch.counts, completed=631))
    gone = await delete(deployment, ".results")
    report = await collector_of(deployment, SETTINGS).collect()
    assert (report.drift, report.lines_rerun) == (len(gone), 0)
    assert (await deployment.get(batch.id)).counts.completed == 631


@scenario
async def test_bytes_that_are_no_results_are_left_alone(deployment: Deployment) -> None:
    batch = await begun(deployment)
    assert isinstance(deployment.blobs, MemoryBlobs)
    for name, data in list(deployment.blobs._blobs.items()):
        if name.endswith(".results"):
            # As long as it was, but other bytes: no line of ours.
            other = bytes(data).replace(b"_req_", b"-req-").replace(b"_", b"-")
            deployment.blobs._blobs[name] = bytearray(other)
    gone = await delete(deployment, ".errors")
    report = await collector_of(deployment, SETTINGS).collect()
    assert (report.drift, report.lines_rerun) == (len(gone), 0)
    assert (await deployment.get(batch.id)).counts == batch.counts


@pytest.mark.parametrize("which", ["results", "input"])
@scenario
async def test_losses_of_an_ended_batch_are_reported_every_time(
    deployment: Deployment, which: str
) -> None:
    batch = await deployment.submit(lines(3))
    async with deployment.processor(at_once):
        batch = await deployment.end_of(batch.id)
    file_id = batch.output_file_id if which == "results" else batch.input_file_id
    [part] = await parts_of(deployment, file_id or "")
    await deployment.blobs.delete(part.blob)
    observer = RecordingObserver()
    assert (await collector_of(deployment, SETTINGS, observer).collect()).drift == 1
    report = await collector_of(deployment, SETTINGS, observer).collect()
    assert report.drift == 1
    [damage] = report.damages
    assert (damage.blob, damage.needed, damage.found) == (part.blob, part.length, None)
    assert damage.batches == ((batch.id,) if which == "results" else ())
    assert len(observer.damages) == 2


@pytest.mark.parametrize("kind", [BlobMissing, BlobUnreadable])
@scenario
async def test_bytes_that_can_only_not_be_read_now_are_not_given_up(
    deployment: Deployment, kind: type[BlobMissing]
) -> None:
    batch = await begun(deployment)
    length = deployment.blobs.length
    held = [(await parts_of(deployment, batch.output_file_id or ""))[0].blob]

    async def refused(asked: str) -> int:
        if asked in held:
            raise kind(f"Blob '{asked}' can't be read: Permission denied.")
        return await length(asked)

    setattr(deployment.blobs, "length", refused)  # noqa: B010 -- a disk with a whim
    report = await collector_of(deployment, SETTINGS).collect()
    assert (report.drift, report.lines_rerun) == (1, 0)
    assert not report.damages[0].readable
    held.clear()
    assert (await collector_of(deployment, SETTINGS).collect()).drift == 0
    await finished(deployment, batch)


@scenario
async def test_surviving_results_that_can_not_be_read_now_are_not_taken_for_lost(
    deployment: Deployment,
) -> None:
    batch = await begun(deployment)
    await delete(deployment, ".errors")
    read = deployment.blobs.read
    is_bad = [True]

    async def refused(name: str, offset: int, length: int) -> bytes:
        if name.endswith(".results") and is_bad:
            raise BlobUnreadable(f"Blob '{name}' can't be read: Input/output error.")
        return await read(name, offset, length)

    setattr(deployment.blobs, "read", refused)  # noqa: B010 -- a disk with a whim
    report = await collector_of(deployment, SETTINGS).collect()
    assert (report.drift, report.lines_rerun) == (1, 0)
    is_bad.clear()
    assert (await collector_of(deployment, SETTINGS).collect()).lines_rerun == 70
    await finished(deployment, batch)


@scenario
async def test_what_is_released_in_the_midst_of_a_pass_is_no_drift(deployment: Deployment) -> None:
    file_id = await deployment.upload(b"0123")
    [blob] = await deployment.blobs.list_names("")
    collector = collector_of(deployment, SETTINGS)
    references = deployment.store.list_references

    async def late(*, after: str, limit: int) -> object:
        found = await references(after=after, limit=limit)
        await deployment.store.delete_file("default", file_id)
        await deployment.store.release_files([file_id], keep_seconds=0)
        await deployment.blobs.delete(blob)
        deployment.store.list_references = references  # type: ignore[method-assign]  # once
        return found

    deployment.store.list_references = late  # type: ignore[assignment]  # an answer, then a race
    report = await collector.collect()
    assert (report.drift, report.damages) == (0, ())
