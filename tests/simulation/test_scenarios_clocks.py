"""Stories of hosts whose clocks are wrong: the ledger's clock judges what waits (PROTOCOL 2)."""

import asyncio
from dataclasses import replace

import pytest

from testkit.scenarios.collector import DAY, HOUR, collector_of
from testkit.scenarios.scenario import at_once, fails, lines, now, scenario
from tidegate.blobs.base import BlobWriter
from tidegate.collector.settings import Settings
from tidegate.domain.batch import Status
from tidegate.domain.errors import BlobMissing, StorageFull, StoreUnavailable
from tidegate.processor.batches.loops import FULL_DISK_SECONDS
from tidegate.processor.leases.opener import MISSING_PLAN_SECONDS
from tidegate.testing.deployment import TENANT, Deployment, ok
from tidegate.testing.loop import LoopClock
from tidegate.upstreams.base import Call, Reply

WRONG_CLOCKS = pytest.mark.parametrize("skew_seconds", [0.0, HOUR, -HOUR])
WILD_CLOCKS = pytest.mark.parametrize("skew_seconds", [0.0, 40 * DAY, -40 * DAY])
AWAY_SECONDS = 5.0
WINDOW_SECONDS = 20.0
POLL_SECONDS = 0.25
GRAIN_SECONDS = 1e-6  # Unix seconds as a float are no finer.


class Server:
    """Answers each request after a second, and notes when it came."""

    def __init__(self) -> None:
        self.sent: list[float] = []

    async def answer(self, call: Call) -> Reply:
        self.sent.append(now())
        await asyncio.sleep(1.0)
        return ok()


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
@scenario
async def test_a_shard_whose_plan_is_missing_waits_its_time_and_no_longer(
    world: Deployment, skew_seconds: float
) -> None:
    host = on_host(world, skew_seconds)
    batch = await world.submit(lines(3))
    hide_plans(world)
    handed_back = counted(world.store, "hand_back")
    async with host.processor(at_once):
        await asyncio.sleep(MISSING_PLAN_SECONDS - 1.0)
        assert len(handed_back) == 1, "handed back once, and claimed no more"
        ended = await world.end_of(batch.id, within_seconds=AWAY_SECONDS)
    assert ended.counts.completed == 3


@WRONG_CLOCKS
@scenario
async def test_a_planning_without_room_is_tried_again_in_time(
    world: Deployment, skew_seconds: float
) -> None:
    host = on_host(world, skew_seconds)
    batch = await world.submit(lines(3))
    fill_up(world, until=0.5)
    async with host.processor(at_once):
        ended = await world.end_of(batch.id, within_seconds=2 * FULL_DISK_SECONDS)
    assert now() > FULL_DISK_SECONDS
    assert ended.counts.completed == 3


@WILD_CLOCKS
@scenario
async def test_a_wrong_collector_deletes_nothing_under_a_download(
    world: Deployment, skew_seconds: float
) -> None:
    collector = collector_of(on_host(world, skew_seconds), Settings(download_seconds_max=60.0))
    file_id = await world.upload(b"0123")
    await world.store.delete_file(TENANT, file_id)
    assert (await collector.collect()).files_released == 1
    await asyncio.sleep(59.75)
    assert (await collector.collect()).blobs_deleted == 0
    await asyncio.sleep(0.25)
    assert (await collector.collect()).blobs_deleted == 1


@WILD_CLOCKS
@scenario
async def test_a_wrong_collector_gives_up_no_upload_that_is_under_way(
    world: Deployment, skew_seconds: float
) -> None:
    collector = collector_of(on_host(world, skew_seconds), Settings(upload_seconds_max=60.0))
    at, blob = world.clock.now(), "uploads/u"
    await world.store.begin_upload("u", tenant=TENANT, blob=blob, at=at)
    await world.blobs.put(blob, b"0123")
    await asyncio.sleep(59.75)
    assert (await collector.collect()).blobs_deleted == 0
    await asyncio.sleep(0.25)
    assert (await collector.collect()).blobs_deleted == 1


@WILD_CLOCKS
@scenario
async def test_a_wrong_collector_keeps_what_ended_its_time(
    world: Deployment, skew_seconds: float
) -> None:
    collector = collector_of(on_host(world, skew_seconds), Settings(retention_seconds=60.0))
    await world.cancel((await world.submit(lines(1))).id)
    claimed = await world.store.claim_planning("before", lease_seconds=1.0)
    assert claimed is not None
    await world.store.end_unplanned(claimed.claim, problems=[], at=world.clock.now())
    await asyncio.sleep(59.75)
    assert (await collector.collect()).batches_dropped == 0
    await asyncio.sleep(0.25)
    assert (await collector.collect()).batches_dropped == 1


@WILD_CLOCKS
@scenario
async def test_a_wrong_host_ends_no_batch_early(world: Deployment, skew_seconds: float) -> None:
    async with on_host(world, skew_seconds).processor(at_once):
        batch = await world.submit(lines(100), window_seconds=WINDOW_SECONDS)
        ended = await world.end_of(batch.id, within_seconds=WINDOW_SECONDS)
    assert (ended.status, ended.counts.completed) == (Status.COMPLETED, 100)


@WILD_CLOCKS
@scenario
async def test_a_wrong_host_ends_a_batch_with_its_window_and_sends_nothing_after(
    world: Deployment, skew_seconds: float
) -> None:
    server = Server()
    async with on_host(world, skew_seconds).processor(server.answer):
        batch = await world.submit(lines(5_000), window_seconds=WINDOW_SECONDS)
        ended = await world.end_of(batch.id, within_seconds=2 * WINDOW_SECONDS)
    assert ended.status is Status.EXPIRED
    assert 0 < ended.counts.completed < 5_000
    # Requests in flight may be answered, then a commit follows.
    assert WINDOW_SECONDS <= now() <= WINDOW_SECONDS + POLL_SECONDS + 2.0
    assert WINDOW_SECONDS - 2.0 < max(server.sent) < WINDOW_SECONDS + GRAIN_SECONDS


@WILD_CLOCKS
@scenario
async def test_a_wrong_host_plans_a_batch_within_its_window_and_not_after(
    world: Deployment, skew_seconds: float
) -> None:
    batch = await world.submit(lines(3), window_seconds=WINDOW_SECONDS)
    await asyncio.sleep(WINDOW_SECONDS)
    async with on_host(world, skew_seconds).processor(at_once):
        ended = await world.end_of(batch.id, within_seconds=1.0)
        assert (ended.status, ended.counts.total) == (Status.EXPIRED, 0)
        timely = await world.submit(lines(3), window_seconds=WINDOW_SECONDS)
        ended = await world.end_of(timely.id, within_seconds=WINDOW_SECONDS)
    assert ended.status is Status.COMPLETED


@scenario
async def test_hosts_that_disagree_about_the_time_share_a_batch_to_its_end(
    world: Deployment,
) -> None:
    server = Server()
    async with (
        on_host(world, 40 * DAY).processor(server.answer),
        on_host(world, -40 * DAY).processor(server.answer),
    ):
        batch = await world.submit(lines(300), window_seconds=DAY)
        ended = await world.end_of(batch.id, within_seconds=DAY)
    assert (ended.status, ended.counts.completed) == (Status.COMPLETED, 300)
    assert len(server.sent) == 300


@WILD_CLOCKS
@scenario
async def test_a_slow_ledger_makes_no_request_late_and_no_end_early(
    world: Deployment, skew_seconds: float
) -> None:
    server = Server()
    poll = world.store.poll

    async def slowly(owner: str, **options: object) -> object:
        await asyncio.sleep(0.3)
        found = await poll(owner, **options)  # type: ignore[arg-type]  # they are passed on
        await asyncio.sleep(0.4)
        return found

    setattr(world.store, "poll", slowly)  # noqa: B010 - as above
    async with on_host(world, skew_seconds).processor(server.answer):
        batch = await world.submit(lines(5_000), window_seconds=WINDOW_SECONDS)
        ended = await world.end_of(batch.id, within_seconds=2 * WINDOW_SECONDS)
    assert ended.status is Status.EXPIRED
    assert now() >= WINDOW_SECONDS
    assert WINDOW_SECONDS - 2.0 < max(server.sent) < WINDOW_SECONDS + GRAIN_SECONDS


@scenario
async def test_a_ledger_that_falls_silent_keeps_no_batch_from_its_deadline(
    world: Deployment,
) -> None:
    server = Server()
    fails(
        world.store,
        "poll",
        StoreUnavailable("away"),
        since=WINDOW_SECONDS - 1.0,
        until=2 * WINDOW_SECONDS,
    )
    async with world.processor(server.answer):
        batch = await world.submit(lines(5_000), window_seconds=WINDOW_SECONDS)
        await asyncio.sleep(WINDOW_SECONDS + 5.0)
        assert (await world.get(batch.id)).counts.expired > 0, "its open shards end in time"
        ended = await world.end_of(batch.id, within_seconds=2 * WINDOW_SECONDS)
    assert ended.status is Status.EXPIRED
    assert max(server.sent) < WINDOW_SECONDS + GRAIN_SECONDS
