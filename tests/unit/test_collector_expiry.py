"""What had its time goes: files, then their bytes; batches, then their rows. Not earlier."""

import pytest

from testkit.scenarios.collector import DAY, HOUR, collector_of
from testkit.scenarios.scenario import at_once, lines, scenario
from tidegate.collector.settings import Settings
from tidegate.domain.batch import Status
from tidegate.domain.errors import NotFound
from tidegate.testing.deployment import TENANT, Deployment
from tidegate.testing.loop import LoopClock

SETTINGS = Settings(retention_seconds=30 * DAY, download_seconds_max=HOUR)


def later(deployment: Deployment, seconds: float) -> None:
    assert isinstance(deployment.clock, LoopClock)
    deployment.clock.skew_seconds += seconds


@scenario
async def test_a_deleted_file_keeps_its_bytes_for_its_readers(deployment: Deployment) -> None:
    collector = collector_of(deployment, SETTINGS)
    file_id = await deployment.upload(b"0123456789")
    assert (await collector.collect()).files_released == 0
    await deployment.store.delete_file(TENANT, file_id)
    assert await collector.preview() == await collector.preview()
    report = await collector.collect()
    assert (report.files_released, report.bytes_released) == (1, 10)
    assert (report.blobs_deleted, report.drift) == (0, 0)
    later(deployment, HOUR - 1)
    assert (await collector.collect()).blobs_deleted == 0
    assert len(await deployment.blobs.list_names("")) == 1
    later(deployment, 1)
    report = await collector.collect()
    assert (report.blobs_deleted, report.bytes_deleted) == (1, 10)
    assert await deployment.blobs.list_names("") == []
    assert (await collector.collect()).blobs_deleted == 0


@scenario
async def test_a_deleted_input_stays_until_its_batch_has_ended(deployment: Deployment) -> None:
    collector = collector_of(deployment, Settings(download_seconds_max=0))
    file_id = await deployment.upload(b"".join(lines(3)))
    batch = await deployment.create(file_id)
    await deployment.store.delete_file(TENANT, file_id)
    report = await collector.collect()
    assert (report.files_released, report.blobs_deleted) == (0, 0)
    async with deployment.processor(at_once):
        batch = await deployment.end_of(batch.id)
    assert batch.counts.completed == 3
    report = await collector.collect()
    assert (report.files_released, report.blobs_deleted) == (1, 1)
    assert len(await deployment.results(batch)) == 3


@scenario
async def test_results_go_when_their_time_is_over_and_the_batch_when_its_own_is(
    deployment: Deployment,
) -> None:
    collector = collector_of(deployment, SETTINGS)
    batch = await deployment.submit(lines(3))
    async with deployment.processor(at_once):
        batch = await deployment.end_of(batch.id)
    later(deployment, 30 * DAY - HOUR)
    assert (await collector.collect()).batches_dropped == 0
    later(deployment, 2 * HOUR)
    assert (await collector.preview()).batches_dropped == 1
    assert (await collector.collect()).batches_dropped == 1
    with pytest.raises(NotFound):
        await deployment.get(batch.id)
    # It said nothing of an expiry, so its results stay for good.
    assert len(await deployment.results(batch)) == 3
    report = await collector.collect()
    assert (report.batches_dropped, report.drift, report.unknown_blobs) == (0, 0, 0)


@scenario
async def test_a_batch_that_runs_never_goes(deployment: Deployment) -> None:
    collector = collector_of(deployment, Settings(retention_seconds=0))
    batch = await deployment.submit(lines(3))
    later(deployment, 100 * DAY)
    assert (await collector.collect()).batches_dropped == 0
    async with deployment.processor(at_once):
        batch = await deployment.end_of(batch.id)
    assert batch.status is Status.EXPIRED
    later(deployment, 1)
    assert (await collector.collect()).batches_dropped == 1


@scenario
async def test_rows_of_what_is_gone_are_purged_after_the_retention(deployment: Deployment) -> None:
    collector = collector_of(deployment, SETTINGS)
    file_id = await deployment.upload(b"0123456789")
    await deployment.store.delete_file(TENANT, file_id)
    assert (await collector.collect()).rows_purged == 0
    later(deployment, 31 * DAY)
    assert (await collector.collect()).rows_purged == 2
    assert (await collector.collect()).rows_purged == 0


@scenario
async def test_a_thousand_files_go_in_pieces(deployment: Deployment) -> None:
    collector = collector_of(deployment, Settings(download_seconds_max=0))
    for _ in range(401):
        await deployment.store.delete_file(TENANT, await deployment.upload(b"0"))
    assert (await collector.preview()).files_released == 401
    report = await collector.collect()
    assert (report.files_released, report.blobs_deleted) == (401, 401)
    assert await deployment.blobs.list_names("") == []
