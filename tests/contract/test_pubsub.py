"""Every pubsub passes the contract suite; here are also the tests of the one in memory."""

import asyncio

import pytest

from tidegate.pubsub.base import PubSub
from tidegate.pubsub.memory import PENDING_TOPICS_MAX, MemoryPubSub
from tidegate.testing.contract.pubsub import PubSubContract


@pytest.fixture(params=["memory"])
def pubsub() -> PubSub:
    return MemoryPubSub()


class TestPubSub(PubSubContract):
    pass


async def test_an_announcement_that_races_with_the_time_out_is_delivered() -> None:
    pubsub = MemoryPubSub()
    with pubsub.listen(("work",)) as listener:
        loop = asyncio.get_running_loop()
        # Both fall due in the same turn of the loop; the time-out's timer was set first.
        waiting = asyncio.TaskGroup()
        async with waiting:
            task = waiting.create_task(listener.wait(0.02), name="wait")
            await asyncio.sleep(0)
            due = loop.time() + 0.02
            loop.call_at(due, pubsub.publish, "work")
            while loop.time() < due:
                pass
        heard = task.result() | await listener.wait(0.05)
    assert heard == {"work"}


async def test_memory_stays_bounded_and_forgets_the_rest() -> None:
    pubsub = MemoryPubSub()
    with pubsub.listen(("batch/",)) as listener:
        for number in range(PENDING_TOPICS_MAX + 10):
            pubsub.publish(f"batch/{number}")
        heard = await listener.wait(0.0)
        assert len(heard) == PENDING_TOPICS_MAX
        pubsub.publish("batch/after")
        assert await listener.wait(0.0) == {"batch/after"}


async def test_a_listener_that_left_receives_no_more() -> None:
    pubsub = MemoryPubSub()
    with pubsub.listen(("work",)) as listener:
        pass
    pubsub.publish("work")
    assert await listener.wait(0.0) == frozenset()


async def test_two_waits_at_a_time_are_a_bug() -> None:
    pubsub = MemoryPubSub()
    with pubsub.listen(("work",)) as listener:
        async with asyncio.TaskGroup() as group:
            task = group.create_task(listener.wait(5.0), name="wait")
            await asyncio.sleep(0)
            with pytest.raises(AssertionError, match="two tasks"):
                await listener.wait(0.0)
            pubsub.publish("work")
        assert task.result() == {"work"}
