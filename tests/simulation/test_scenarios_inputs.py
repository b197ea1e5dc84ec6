"""Batches whose input can't be read while they are planned wait, and say why (PROTOCOL 7, 19)."""

import asyncio

import pytest

from testkit.scenarios.scenario import at_once, lines, now, scenario
from tidegate.domain.batch import Status
from tidegate.domain.errors import BlobMissing, BlobUnreadable
from tidegate.domain.shard import CRASHES_TO_QUARANTINE
from tidegate.processor.batches.loops import INPUT_MISSING, MISSING_INPUT_SECONDS
from tidegate.testing.deployment import TENANT, Deployment

CAUSES = pytest.mark.parametrize(
    "cause",
    [
        BlobUnreadable("Blob 'uploads/u' can't be read: Input/output error."),
        BlobMissing("There is no blob 'uploads/u'."),
    ],
    ids=["unreadable", "gone"],
)
POLL_SECONDS = 1.0


def refuse_inputs(world: Deployment, cause: Exception, *, until: float) -> list[float]:
    """Let no input be read until then; return a list that gets the time of each attempt."""
    read = world.blobs.read
    attempts: list[float] = []

    async def refused(name: str, offset: int, length: int) -> bytes:
        if name.startswith("uploads/") and now() < until:
            attempts.append(now())
            raise cause
        return await read(name, offset, length)

    setattr(world.blobs, "read", refused)  # noqa: B010 - mypy forbids to assign to a method
    return attempts


@CAUSES
@scenario
async def test_a_batch_waits_for_its_input_says_so_and_goes_on(
    world: Deployment, cause: Exception
) -> None:
    attempts = refuse_inputs(world, cause, until=MISSING_INPUT_SECONDS - POLL_SECONDS)
    batch = await world.submit(lines(3))
    async with world.processor(at_once):
        await asyncio.sleep(MISSING_INPUT_SECONDS - POLL_SECONDS)
        waiting = await world.get(batch.id)
        assert (waiting.status, waiting.waiting_for) == (Status.VALIDATING, INPUT_MISSING)
        assert len(attempts) == 1, "tried again before its time"
        ended = await world.end_of(batch.id, within_seconds=3 * POLL_SECONDS)
    assert (ended.status, ended.counts.completed) == (Status.COMPLETED, 3)
    assert ended.waiting_for is None


@CAUSES
@scenario
async def test_planning_in_a_child_process_waits_for_its_input_as_well(
    world: Deployment, cause: Exception
) -> None:
    batch = await world.submit(lines(3))
    for number in range(CRASHES_TO_QUARANTINE + 1):
        claimed = await world.store.claim_planning(f"ghost-{number}", lease_seconds=1.0)
        assert claimed is not None
        await asyncio.sleep(1.5)
    attempts = refuse_inputs(world, cause, until=now() + 5.0)
    async with world.processor(at_once):
        ended = await world.end_of(batch.id, within_seconds=MISSING_INPUT_SECONDS + 5.0)
    assert ended.counts.completed == 3
    assert len(attempts) == 1


@CAUSES
@scenario
async def test_a_batch_whose_input_stays_away_expires_with_its_window(
    world: Deployment, cause: Exception
) -> None:
    window_seconds = 3.5 * MISSING_INPUT_SECONDS
    attempts = refuse_inputs(world, cause, until=1e9)
    batch = await world.submit(lines(3), window_seconds=window_seconds)
    async with world.processor(at_once):
        ended = await world.end_of(batch.id, within_seconds=window_seconds + POLL_SECONDS)
    assert (ended.status, ended.problems, ended.waiting_for) == (Status.EXPIRED, (), None)
    assert now() >= window_seconds - 1e-6
    assert len(attempts) == 4


@scenario
async def test_other_batches_do_not_wait_for_it(world: Deployment) -> None:
    batch = await world.submit(lines(3))
    parts = await world.store.get_input(batch.id)
    assert parts is not None
    await world.blobs.delete(parts[0].blob)
    others = [await world.submit(lines(3)) for _ in range(4)]
    async with world.processor(at_once):
        for other in others:
            await world.end_of(other.id, within_seconds=5.0)
    assert (await world.get(batch.id)).status is Status.VALIDATING


@scenario
async def test_a_user_can_cancel_it_meanwhile(world: Deployment) -> None:
    refuse_inputs(world, BlobUnreadable("away"), until=1e9)
    batch = await world.submit(lines(3))
    async with world.processor(at_once):
        await asyncio.sleep(5.0)
        await world.cancel(batch.id)
        ended = await world.end_of(batch.id, within_seconds=POLL_SECONDS)
    assert ended.status is Status.CANCELLED


@scenario
async def test_a_file_that_was_deleted_before_the_batch_fails_it(world: Deployment) -> None:
    file_id = await world.upload(b"".join(lines(3)))
    await world.store.delete_file(TENANT, file_id)
    batch = await world.create(file_id)
    async with world.processor(at_once):
        ended = await world.end_of(batch.id)
    assert ended.status is Status.FAILED
    assert "Cannot find file" in ended.problems[0].message
