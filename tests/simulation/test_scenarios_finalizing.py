"""Batches end though no processor is alive: the collector ends them, as a processor would."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from testkit.scenarios.collector import RecordingObserver, collecting, collector_of, ender_of
from testkit.scenarios.scenario import at_once, fails, lines, meets, now, run_scenario, scenario
from tidegate.domain.batch import Batch, Counts, Status
from tidegate.domain.errors import StorageBroken, StorageFull, StoreUnavailable
from tidegate.domain.ledger.values import Want
from tidegate.planning.settings import Planning, UnknownModel
from tidegate.processor.fallback_finalizer import PATIENCE_SECONDS
from tidegate.processor.settings import Settings
from tidegate.testing.deployment import Deployment, ok
from tidegate.testing.loop import LoopClock
from tidegate.upstreams.base import Call, Reply

LEASE_SECONDS = Settings().claims.lease_seconds
POLL_SECONDS = Settings().claims.poll_seconds
WINDOW_SECONDS = 60.0


def later(world: Deployment, seconds: float) -> None:
    """Let time pass for everybody, without waiting."""
    assert isinstance(world.clock, LoopClock)
    world.clock.passed_seconds += seconds


async def until(true: Callable[[], Awaitable[bool]], *, within_seconds: float = 60.0) -> None:
    async with asyncio.timeout(within_seconds):
        while not await true():  # noqa: ASYNC110 - virtual time passes
            await asyncio.sleep(0.01)


async def abandoned(world: Deployment, batch: Batch, *, answered: int) -> None:
    """Let a processor answer some lines of a batch and die; its claims live for a while."""
    calls = 0

    async def some(_: Call) -> Reply:
        nonlocal calls
        calls += 1
        if calls > answered:
            await asyncio.Event().wait()
        return ok()

    async def live() -> None:
        async with world.processor(some):
            await asyncio.Event().wait()

    async def is_done() -> bool:
        found = await world.get(batch.id)
        return found.is_planned and found.counts.completed == answered

    async with asyncio.TaskGroup() as group:
        doomed = group.create_task(live(), name="doomed")
        await until(is_done)
        doomed.cancel()


@scenario
async def test_a_batch_that_was_never_planned_expires_without_files(world: Deployment) -> None:
    batch = await world.submit(lines(3), window_seconds=WINDOW_SECONDS)
    other = await world.submit(lines(3))
    collector = collector_of(world)
    later(world, WINDOW_SECONDS - 1.0)
    assert (await collector.collect()).batches_ended == 0
    later(world, 1.0)
    assert (await collector.preview()).batches_ended == 1
    assert (await world.get(batch.id)).status is Status.VALIDATING, "looking changed it"
    report = await collector.collect()
    assert (report.batches_ended, report.overdue) == (1, ())
    ended = await world.get(batch.id)
    assert (ended.status, ended.counts) == (Status.EXPIRED, Counts())
    assert (ended.output_file_id, ended.error_file_id) == (None, None)
    assert (await world.get(other.id)).status is Status.VALIDATING, "its time is not over"
    assert (await collector.collect()).batches_ended == 0


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_batch_that_was_left_half_done_gets_the_files_that_a_processor_would_write(
    cancelled: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    found: list[tuple[Counts, bytes, bytes]] = []

    async def half_done(world: Deployment) -> Batch:
        batch = await world.submit(lines(700), window_seconds=WINDOW_SECONDS)
        await abandoned(world, batch, answered=5)
        if cancelled:
            await world.cancel(batch.id)
        await asyncio.sleep(WINDOW_SECONDS)
        return batch

    async def keep(world: Deployment, batch: Batch) -> None:
        ended = await world.get(batch.id)
        assert ended.status is (Status.CANCELLED if cancelled else Status.EXPIRED)
        assert (ended.counts.completed, ended.counts.failed) == (5, 695)
        assert len(await world.results(ended)) == 700
        assert ended.output_file_id is not None
        assert ended.error_file_id is not None
        files = [await world.content(x) for x in (ended.output_file_id, ended.error_file_id)]
        found.append((ended.counts, files[0], b"\n".join(sorted(files[1].splitlines()))))

    async def ended_by_a_processor(world: Deployment) -> None:
        batch = await half_done(world)
        async with world.processor(at_once):
            await world.end_of(batch.id)
        await keep(world, batch)

    async def ended_by_a_collector(world: Deployment) -> None:
        batch = await half_done(world)
        assert (await collector_of(world).collect()).batches_ended == 1
        await keep(world, batch)

    run_scenario(ended_by_a_processor)
    run_scenario(ended_by_a_collector)
    assert found[0] == found[1]


@scenario
async def test_claims_of_the_dead_are_waited_for(world: Deployment) -> None:
    batch = await world.submit(lines(30))
    await abandoned(world, batch, answered=3)
    await world.cancel(batch.id)
    # Claims may outlast the membership of their owner, which was renewed first.
    for owner in await world.store.list_members():
        await world.store.leave(owner)
    begun = now()
    assert (await collector_of(world).collect()).batches_ended == 1
    assert LEASE_SECONDS / 2 < now() - begun < LEASE_SECONDS + PATIENCE_SECONDS
    ended = await world.get(batch.id)
    assert (ended.status, ended.counts.failed) == (Status.CANCELLED, 27)


@scenario
async def test_a_batch_that_no_processor_finalized_is_finalized(world: Deployment) -> None:
    async def is_finalizing(world: Deployment, batch_id: str) -> bool:
        return (await world.get(batch_id)).status is Status.FINALIZING

    batch = await world.submit(lines(30))
    fails(world.store, "claim_finalizing", StoreUnavailable("away"), until=100.0)
    async with world.processor(at_once):
        await until(lambda: is_finalizing(world, batch.id))
    await asyncio.sleep(100.0)
    assert (await collector_of(world).collect()).batches_ended == 1
    ended = await world.get(batch.id)
    assert (ended.status, ended.counts.completed) == (Status.COMPLETED, 30)


@scenario
async def test_what_processors_can_do_is_left_to_them(world: Deployment) -> None:
    batch = await world.submit(lines(3))
    await world.cancel(batch.id)
    await world.store.renew_membership("proc", lease_seconds=LEASE_SECONDS)
    collector = collector_of(world)
    for report in (await collector.preview(), await collector.collect()):
        assert (report.batches_left, report.batches_ended) == (1, 0)
    assert (await world.get(batch.id)).status is Status.CANCELLING
    await asyncio.sleep(LEASE_SECONDS)
    report = await collector.collect()
    assert (report.batches_left, report.batches_ended) == (0, 1)


@pytest.mark.parametrize(
    "verb", ["poll", "claim_shards", "begin_writer", "commit", "claim_finalizing", "finish_batch"]
)
@scenario
async def test_a_processor_may_come_alive_at_any_moment(world: Deployment, verb: str) -> None:
    batches = [await world.submit(lines(900), window_seconds=WINDOW_SECONDS) for _ in range(3)]
    for batch in batches:
        await abandoned(world, batch, answered=0)
    await asyncio.sleep(WINDOW_SECONDS + LEASE_SECONDS)
    sent: list[Call] = []

    async def answer(call: Call) -> Reply:
        sent.append(call)
        return ok()

    come = asyncio.Event()
    meets(world.store, verb, come.set)

    async def join() -> None:
        await come.wait()
        async with world.processor(answer):
            for batch in batches:
                await world.end_of(batch.id)

    async with asyncio.TaskGroup() as group:
        group.create_task(join(), name="late")
        report = await collector_of(world).collect()
    assert report.overdue == ()
    for batch in batches:
        ended = await world.get(batch.id)
        assert (ended.status, ended.counts.expired) == (Status.EXPIRED, 900)
        assert len(await world.results(ended)) == 900
    assert sent == []


@scenario
async def test_a_collector_that_runs_ends_what_is_due_within_its_interval(
    world: Deployment,
) -> None:
    async with collecting(world):
        batch = await world.submit(lines(30), window_seconds=WINDOW_SECONDS)
        await abandoned(world, batch, answered=3)
        ended = await world.end_of(batch.id, within_seconds=WINDOW_SECONDS + 62.0)
    assert (ended.status, ended.counts.expired) == (Status.EXPIRED, 27)


@scenario
async def test_two_collectors_end_a_batch_once(world: Deployment) -> None:
    batch = await world.submit(lines(2_000), window_seconds=WINDOW_SECONDS)
    await abandoned(world, batch, answered=3)
    await asyncio.sleep(WINDOW_SECONDS)
    await asyncio.gather(collector_of(world).collect(), collector_of(world).collect())
    ended = await world.get(batch.id)
    assert (ended.status, ended.counts.expired) == (Status.EXPIRED, 1_997)
    assert len(await world.results(ended)) == 2_000


@scenario
async def test_the_clock_of_the_ledger_decides_and_nothing_is_planned(world: Deployment) -> None:
    """A planner that believed its own clock would find no model served, and fail the batch."""

    batch = await world.submit(lines(3), window_seconds=WINDOW_SECONDS)
    await asyncio.sleep(WINDOW_SECONDS)
    behind = LoopClock(asyncio.get_running_loop())
    behind.skew_seconds = -10.0
    settings = Settings(planning=Planning(unknown_model=UnknownModel.REJECT_BATCH))
    slow = Deployment(world.store, world.blobs, world.pubsub, behind, world.ids)
    await ender_of(slow, settings).end_all(lambda: False)
    assert (await world.get(batch.id)).status is Status.EXPIRED


@scenario
async def test_a_batch_without_its_plan_is_given_up_and_reported_and_does_not_hold_up_others(
    world: Deployment,
) -> None:
    told_what = RecordingObserver()
    collector = collector_of(world, observer=told_what)
    stuck = await world.submit(lines(3), window_seconds=WINDOW_SECONDS)
    other = await world.submit(lines(3), window_seconds=WINDOW_SECONDS)
    await abandoned(world, stuck, answered=0)
    await abandoned(world, other, answered=0)
    plan = (await world.get(stuck.id)).plan_blob
    assert plan is not None
    data = await world.blobs.read(plan, 0, await world.blobs.length(plan))
    await world.blobs.delete(plan)
    await asyncio.sleep(WINDOW_SECONDS)
    claims: list[int] = []
    claim = world.store.claim_shards

    async def counted(owner: str, wants: list[Want], *, lease_seconds: float) -> object:
        claims.append(len(wants))
        return await claim(owner, wants, lease_seconds=lease_seconds)

    setattr(world.store, "claim_shards", counted)  # noqa: B010 - a port is replaced
    begun = now()
    report = await collector.collect()
    took = now() - begun
    patience = LEASE_SECONDS + PATIENCE_SECONDS
    assert patience < took < patience + 6 * POLL_SECONDS
    assert (report.batches_ended, report.overdue) == (1, (stuck.id,))
    assert told_what.overdue_batches == [stuck.id]
    assert (await world.get(other.id)).status is Status.EXPIRED
    assert len(claims) <= 2, "it was claimed again and again"
    await world.blobs.put(plan, data)
    assert (await collector.collect()).batches_ended == 1


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StorageFull("no room")])
@scenario
async def test_a_ledger_that_does_not_answer_holds_up_a_round_for_a_while_only(
    world: Deployment, error: Exception
) -> None:
    batch = await world.submit(lines(30), window_seconds=WINDOW_SECONDS)
    await abandoned(world, batch, answered=3)
    await asyncio.sleep(WINDOW_SECONDS)
    fails(world.store, "commit", error, until=now() + 600.0)
    begun = now()
    report = await collector_of(world).collect()
    assert (report.batches_ended, report.overdue) == (0, (batch.id,))
    assert now() - begun < 2 * LEASE_SECONDS + PATIENCE_SECONDS + 1.0
    await asyncio.sleep(600.0)
    assert (await collector_of(world).collect()).batches_ended == 1
    assert len(await world.results(await world.get(batch.id))) == 30


@scenario
async def test_a_stop_in_the_midst_is_obeyed_and_nothing_stays_claimed(world: Deployment) -> None:
    batch = await world.submit(lines(30), window_seconds=WINDOW_SECONDS)
    await abandoned(world, batch, answered=3)
    for owner in await world.store.list_members():
        await world.store.leave(owner)
    await world.cancel(batch.id)
    # Its claims live: the ender waits for them.
    stopping: list[bool] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(ender_of(world).end_all(lambda: bool(stopping)), name="ends")
        await asyncio.sleep(2.0)
        stopping.append(True)
        stopped = now()
    assert now() - stopped < 1.0
    assert (await world.get(batch.id)).status is Status.CANCELLING


@scenario
async def test_broken_storage_ends_the_collector_with_its_reason(world: Deployment) -> None:
    batch = await world.submit(lines(30), window_seconds=WINDOW_SECONDS)
    await abandoned(world, batch, answered=3)
    await asyncio.sleep(WINDOW_SECONDS)
    fails(world.blobs, "append", StorageBroken("the disk is broken"))
    with pytest.raises(StorageBroken, match="the disk is broken"):
        await collector_of(world).collect()


@scenario
async def test_an_ender_is_not_counted_and_takes_no_part_of_any_limit(world: Deployment) -> None:
    batch = await world.submit(lines(3))
    await world.cancel(batch.id)
    beats: list[str] = []
    fails(world.store, "end_unplanned", StoreUnavailable("away"), until=now() + 12.0)
    renew_membership = world.store.renew_membership

    async def heard(owner: str, *, lease_seconds: float) -> None:
        beats.append(owner)
        await renew_membership(owner, lease_seconds=lease_seconds)

    setattr(world.store, "renew_membership", heard)  # noqa: B010 - a port is replaced
    await ender_of(world).end_all(lambda: False)
    assert (await world.get(batch.id)).status is Status.CANCELLED
    assert now() > LEASE_SECONDS / 3, "too soon for a lease renewal"
    assert beats == []
