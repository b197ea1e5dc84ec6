"""The collector as a service: when it works, how it ends, and what holds it up."""

import asyncio

import pytest

from testkit.scenarios.collector import RecordingObserver, collecting, collector_of
from testkit.scenarios.scenario import fails, now, scenario
from tidegate.collector.settings import Settings
from tidegate.domain.errors import StorageBroken, StoreUnavailable
from tidegate.testing.deployment import TENANT, Deployment

SETTINGS = Settings(interval_seconds=60.0, sweep_seconds=300.0)


def noted(deployment: Deployment, name: str) -> list[float]:
    """Return the times at which a method of the ledger is called from now on."""
    times: list[float] = []
    method = getattr(deployment.store, name)

    async def noting(*arguments: object, **named: object) -> object:
        times.append(now())
        return await method(*arguments, **named)

    setattr(deployment.store, name, noting)
    return times


@scenario
async def test_rounds_and_sweeps_come_at_their_intervals(deployment: Deployment) -> None:
    rounds = noted(deployment, "list_unused_files")
    sweeps = noted(deployment, "list_references")
    async with collecting(deployment, SETTINGS):
        await asyncio.sleep(700.0)
    assert rounds == [60.0 * number for number in range(1, 12)]
    assert sweeps == [60.0, 360.0, 660.0]


@scenario
async def test_it_ends_at_once_between_two_rounds(deployment: Deployment) -> None:
    async with collecting(deployment, SETTINGS):
        await asyncio.sleep(90.0)
    assert now() == 90.0


@scenario
async def test_a_stop_is_obeyed_between_two_pieces(deployment: Deployment) -> None:
    for _ in range(500):
        await deployment.store.delete_file(TENANT, await deployment.upload(b"0"))
    collector = collector_of(deployment, SETTINGS)
    release = deployment.store.release_files

    async def stopping(file_ids: list[str], *, keep_seconds: float) -> list[str]:
        collector.stop()
        return await release(file_ids, keep_seconds=keep_seconds)

    setattr(deployment.store, "release_files", stopping)  # noqa: B010 -- a stop in mid-round
    await collector.run()
    left = await deployment.store.list_unused_files(limit=1_000)
    assert len(left) == 300, "the piece at hand was done, and no other begun"


@pytest.mark.parametrize("verb", ["stop", "abort"])
@scenario
async def test_stopped_before_it_runs_it_does_not_begin(deployment: Deployment, verb: str) -> None:
    rounds = noted(deployment, "list_unused_files")
    collector = collector_of(deployment, SETTINGS)
    for _ in range(2):
        getattr(collector, verb)()
    await collector.run()
    assert (rounds, now()) == ([], 0.0)


@scenario
async def test_aborted_it_does_not_wait(deployment: Deployment) -> None:
    collector = collector_of(deployment, SETTINGS)

    async def never(*, limit: int) -> list[str]:
        await asyncio.Event().wait()
        return []

    setattr(deployment.store, "list_unused_files", never)  # noqa: B010 -- a ledger that hangs
    async with asyncio.TaskGroup() as group:
        group.create_task(collector.run(), name="collector")
        await asyncio.sleep(61.0)
        collector.stop()
        await asyncio.sleep(1.0)
        collector.abort()
        collector.abort()
    assert now() == 62.0


@scenario
async def test_a_ledger_that_does_not_answer_holds_up_one_round_and_no_other_duty(
    deployment: Deployment,
) -> None:
    observer = RecordingObserver()
    error = StoreUnavailable("no answer")
    fails(deployment.store, "list_unused_files", error, until=100.0)
    await deployment.store.delete_file(TENANT, await deployment.upload(b"0"))
    compactions = noted(deployment, "list_fragmented")
    async with collecting(deployment, SETTINGS, observer):
        await asyncio.sleep(130.0)
    assert observer.errors == [error]
    assert compactions == [60.0, 120.0]
    assert await deployment.store.list_unused_files(limit=1) == []


@scenario
async def test_a_broken_disk_ends_it(deployment: Deployment) -> None:
    fails(deployment.blobs, "list_names", StorageBroken("broken"))
    with pytest.raises(ExceptionGroup) as caught:
        await collector_of(deployment, SETTINGS).run()
    assert caught.group_contains(StorageBroken)
