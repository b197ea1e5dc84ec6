"""Every signal carrier keeps the contract; what only the one in memory promises is here too."""

import asyncio

import pytest

from tidegate.signals.base import Signals
from tidegate.signals.memory import PENDING_TOPICS_MAX, MemorySignals
from tidegate.testing.contract.signals import SignalsContract


@pytest.fixture(params=["memory"])
def signals() -> Signals:
    return MemorySignals()


class TestSignals(SignalsContract):
    pass


async def test_an_announcement_that_races_with_the_time_out_is_told() -> None:
    signals = MemorySignals()
    with signals.listen(("work",)) as listener:
        loop = asyncio.get_running_loop()
        # Both fall due in the same turn of the loop; the time-out's timer was set first.
        waiting = asyncio.TaskGroup()
        async with waiting:
            task = waiting.create_task(listener.wait(0.02), name="wait")
            await asyncio.sleep(0)
            due = loop.time() + 0.02
            loop.call_at(due, signals.notify, "work")
            while loop.time() < due:
                pass
        heard = task.result() | await listener.wait(0.05)
    assert heard == {"work"}


async def test_memory_stays_bounded_and_forgets_the_rest() -> None:
    signals = MemorySignals()
    with signals.listen(("batch/",)) as listener:
        for number in range(PENDING_TOPICS_MAX + 10):
            signals.notify(f"batch/{number}")
        heard = await listener.wait(0.0)
        assert len(heard) == PENDING_TOPICS_MAX
        signals.notify("batch/after")
        assert await listener.wait(0.0) == {"batch/after"}


async def test_a_listener_that_left_hears_no_more() -> None:
    signals = MemorySignals()
    with signals.listen(("work",)) as listener:
        pass
    signals.notify("work")
    assert await listener.wait(0.0) == frozenset()


async def test_two_waits_at_a_time_are_a_bug() -> None:
    signals = MemorySignals()
    with signals.listen(("work",)) as listener:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(listener.wait(5.0), name="wait")
            await asyncio.sleep(0)
            with pytest.raises(AssertionError, match="two tasks"):
                await listener.wait(0.0)
            signals.notify("work")
        assert task.result() == {"work"}
