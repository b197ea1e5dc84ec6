"""Stories of hosts whose clocks are wrong: the ledger's clock judges what waits (PROTOCOL 2)."""

import asyncio
from dataclasses import replace

import pytest

from tidegate.blobs.base import BlobWriter
from tidegate.collector.settings import Settings
from tidegate.domain.errors import BlobMissing, StorageFull
from tidegate.processor.claimer import MISSING_PLAN_SECONDS
from tidegate.processor.whole_batch import FULL_DISK_SECONDS
from tidegate.testing.collecting import DAY, HOUR, collector_of
from tidegate.testing.deployment import TENANT, Deployment
from tidegate.testing.loop import LoopClock
from tidegate.testing.stories import at_once, lines, now, told

WRONG_CLOCKS = pytest.mark.parametrize("skew_seconds", [0.0, HOUR, -HOUR])
WILD_CLOCKS = pytest.mark.parametrize("skew_seconds", [0.0, 40 * DAY, -40 * DAY])
AWAY_SECONDS = 5.0


def on_host(world: Deployment, skew_seconds: float) -> Deployment:
    """Return the same deployment as it is seen from a host whose clock is off."""
    clock = LoopClock(asyncio.get_running_loop())
    clock.skew_seconds = skew_seconds
    return replace(world, clock=clock)


def counted(port: object, name: str) -> list[float]:
    """Return a list that gets the time of every call of one method of a port."""
    method = getattr(port, name)
    calls: list[float] = []

    async def noted(*arguments: object, **named: object) -> object:
        calls.append(now())
        return await method(*arguments, **named)

    setattr(port, name, noted)
    return calls


def hide_plans(world: Deployment) -> None:
    """Let no plan be read for the first `AWAY_SECONDS`."""
    read = world.blobs.read

    async def hidden(name: str, offset: int, length: int) -> bytes:
        if name.startswith("plans/") and now() < AWAY_SECONDS:
            raise BlobMissing(name)
        return await read(name, offset, length)

    setattr(world.blobs, "read", hidden)  # noqa: B010 - mypy forbids to assign to a method


def fill_up(world: Deployment, *, until: float) -> None:
    """Let no plan be begun until this moment."""
    writer = world.blobs.writer

    def refused(name: str) -> BlobWriter:
        if now() < until:
            raise StorageFull("full")
        return writer(name)

    setattr(world.blobs, "writer", refused)  # noqa: B010 - as above


@WRONG_CLOCKS
def test_a_shard_whose_plan_is_missing_waits_its_time_and_no_longer(skew_seconds: float) -> None:
    async def story(world: Deployment) -> None:
        host = on_host(world, skew_seconds)
        batch = await world.submit(lines(3))
        hide_plans(world)
        handed_back = counted(world.store, "hand_back")
        async with host.processor(at_once):
            await asyncio.sleep(MISSING_PLAN_SECONDS - 1.0)
            assert len(handed_back) == 1, "handed back once, and claimed no more"
            ended = await world.end_of(batch.id, within_seconds=AWAY_SECONDS)
        assert ended.counts.completed == 3

    told(story)


@WRONG_CLOCKS
def test_a_planning_without_room_is_tried_again_in_time(skew_seconds: float) -> None:
    async def story(world: Deployment) -> None:
        host = on_host(world, skew_seconds)
        batch = await world.submit(lines(3))
        fill_up(world, until=0.5)
        async with host.processor(at_once):
            ended = await world.end_of(batch.id, within_seconds=2 * FULL_DISK_SECONDS)
        assert now() > FULL_DISK_SECONDS
        assert ended.counts.completed == 3

    told(story)


@WILD_CLOCKS
def test_a_wrong_collector_deletes_nothing_under_a_download(skew_seconds: float) -> None:
    async def story(world: Deployment) -> None:
        collector = collector_of(on_host(world, skew_seconds), Settings(download_seconds_max=60.0))
        file_id = await world.upload(b"0123")
        await world.store.delete_file(TENANT, file_id)
        assert (await collector.collect()).files_released == 1
        await asyncio.sleep(59.75)
        assert (await collector.collect()).blobs_deleted == 0
        await asyncio.sleep(0.25)
        assert (await collector.collect()).blobs_deleted == 1

    told(story)


@WILD_CLOCKS
def test_a_wrong_collector_gives_up_no_upload_that_is_under_way(skew_seconds: float) -> None:
    async def story(world: Deployment) -> None:
        collector = collector_of(on_host(world, skew_seconds), Settings(upload_seconds_max=60.0))
        at, blob = world.clock.now(), "uploads/u"
        await world.store.begin_upload("u", tenant=TENANT, blob=blob, at=at)
        await world.blobs.put(blob, b"0123")
        await asyncio.sleep(59.75)
        assert (await collector.collect()).blobs_deleted == 0
        await asyncio.sleep(0.25)
        assert (await collector.collect()).blobs_deleted == 1

    told(story)


@WILD_CLOCKS
def test_a_wrong_collector_keeps_what_ended_its_time(skew_seconds: float) -> None:
    async def story(world: Deployment) -> None:
        collector = collector_of(on_host(world, skew_seconds), Settings(retention_seconds=60.0))
        await world.cancel((await world.submit(lines(1))).id)
        claimed = await world.store.claim_planning("before", lease_seconds=1.0)
        assert claimed is not None
        await world.store.end_unplanned(claimed.claim, problems=[], at=world.clock.now())
        await asyncio.sleep(59.75)
        assert (await collector.collect()).batches_dropped == 0
        await asyncio.sleep(0.25)
        assert (await collector.collect()).batches_dropped == 1

    told(story)
