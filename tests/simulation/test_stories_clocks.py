"""Stories of hosts whose clocks are wrong: the ledger's clock judges what waits (PROTOCOL 2)."""

import asyncio
from dataclasses import replace

import pytest

from tidegate.blobs.base import BlobWriter
from tidegate.domain.errors import BlobMissing, StorageFull
from tidegate.processor.claimer import MISSING_PLAN_SECONDS
from tidegate.processor.whole_batch import FULL_DISK_SECONDS
from tidegate.testing.deployment import Deployment
from tidegate.testing.loop import LoopClock
from tidegate.testing.stories import at_once, lines, now, told

WRONG_CLOCKS = pytest.mark.parametrize("skew_seconds", [0.0, 3600.0, -3600.0])
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
