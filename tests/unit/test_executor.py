"""Lanes: who runs, in which groups, and what becomes of those who wait."""

import asyncio
import threading
from collections.abc import Callable, Sequence

import pytest
from typing_extensions import override

from tidegate.domain.errors import StoreUnavailable
from tidegate.stores.lanes import Executor, Step, ThreadExecutor, Worker
from tidegate.testing.inline_lanes import InlineExecutor


class Recorder(Worker):
    """Runs each step and records the sizes of groups; a closed `gate` holds up every group."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.threads: set[str] = set()
        self.closed = 0
        self.begun = threading.Event()
        self.gate = threading.Event()
        self.gate.set()

    @override
    def run(self, steps: Sequence[Step]) -> None:
        self.begun.set()
        assert self.gate.wait(timeout=30)
        self.groups.append(len(steps))
        self.threads.add(threading.current_thread().name)
        for step in steps:
            try:
                step.run()
            except ValueError as error:
                step.error = error

    @override
    def close(self) -> None:
        self.closed += 1


def refuse() -> int:
    raise ValueError("no")


def give(number: int) -> Callable[[], int]:
    return lambda: number


async def begun(worker: Recorder) -> None:
    """Wait until the worker is busy with its first group."""
    assert await asyncio.to_thread(worker.begun.wait, 30)


@pytest.mark.parametrize("executor", [InlineExecutor(), ThreadExecutor()], ids=["inline", "thread"])
async def test_a_call_returns_its_result_or_raises_its_error(executor: Executor) -> None:
    worker = Recorder()
    lane = executor.open_lane("lane", worker)
    assert await lane.call(lambda: 7) == 7
    with pytest.raises(ValueError, match="no"):
        await lane.call(refuse)
    assert await lane.call(lambda: "still here") == "still here"
    await lane.close()
    await lane.close()
    assert worker.closed == 1
    with pytest.raises(StoreUnavailable, match="closed"):
        await lane.call(lambda: 7)


async def test_inline_work_never_gives_way() -> None:
    worker = Recorder()
    lane = InlineExecutor().open_lane("lane", worker)
    with pytest.raises(StopIteration) as stopped:
        lane.call(lambda: 7).send(None)
    assert stopped.value.value == 7
    assert worker.threads == {threading.current_thread().name}


async def test_what_waits_goes_as_one_group_up_to_its_bound() -> None:
    worker = Recorder()
    worker.gate.clear()
    lane = ThreadExecutor(group_max=4).open_lane("lane-of-groups", worker)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(lane.call(lambda: 0), name="first")]
        await begun(worker)
        tasks += [group.create_task(lane.call(give(n)), name=f"{n}") for n in range(1, 7)]
        await asyncio.sleep(0)
        worker.gate.set()
    assert [task.result() for task in tasks] == list(range(7))
    assert worker.groups == [1, 4, 2]
    assert worker.threads == {"lane-of-groups"}
    await lane.close()


async def test_too_many_waiting_calls_are_refused_at_the_bound() -> None:
    worker = Recorder()
    worker.gate.clear()
    lane = ThreadExecutor(waiting_max=3).open_lane("lane", worker)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(lane.call(lambda: 1), name=f"{n}") for n in range(3)]
        await begun(worker)
        with pytest.raises(StoreUnavailable, match="3 calls waiting"):
            await lane.call(lambda: 1)
        worker.gate.set()
    assert [task.result() for task in tasks] == [1, 1, 1]
    assert await lane.call(lambda: 2) == 2
    await lane.close()


async def test_a_cancelled_caller_does_not_hold_up_the_others() -> None:
    worker = Recorder()
    worker.gate.clear()
    lane = ThreadExecutor().open_lane("lane", worker)
    ran: list[str] = []
    async with asyncio.TaskGroup() as group:
        first = group.create_task(lane.call(lambda: ran.append("first")), name="first")
        await begun(worker)
        second = group.create_task(lane.call(lambda: ran.append("second")), name="second")
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        worker.gate.set()
    assert first.cancelled()
    assert second.done()
    assert ran == ["first", "second"]
    await lane.close()


async def test_closing_finishes_what_was_submitted_and_leaves_no_thread() -> None:
    worker = Recorder()
    worker.gate.clear()
    lane = ThreadExecutor(group_max=2).open_lane("lane-that-closes", worker)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(lane.call(give(n)), name=f"{n}") for n in range(5)]
        await begun(worker)
        closing = [group.create_task(lane.close(), name=f"close-{n}") for n in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StoreUnavailable, match="closed"):
            await lane.call(lambda: 7)
        closing[0].cancel()
        worker.gate.set()
    assert [task.result() for task in tasks] == list(range(5))
    assert worker.closed == 1
    assert "lane-that-closes" not in {thread.name for thread in threading.enumerate()}


class Broken(Worker):
    """Fails as no worker may."""

    @override
    def run(self, steps: Sequence[Step]) -> None:
        raise MemoryError

    @override
    def close(self) -> None:
        pass


async def test_a_worker_that_fails_raises_for_every_caller() -> None:
    lane = ThreadExecutor().open_lane("lane", Broken())
    for _ in range(2):
        with pytest.raises(MemoryError):
            await lane.call(lambda: 7)
    await lane.close()
