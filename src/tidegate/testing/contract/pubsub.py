"""The contract of every pubsub, as far as it delivers.

Subclass `PubSubContract` in a test module that has a fixture `pubsub`. A pubsub may lose
topics; run this suite on one that delivers all.
"""

# ruff: noqa: D102 -- these are tests: their names are sentences, their numbers plain

import asyncio

from tidegate.pubsub.base import WORK, Listener, PubSub, batch_topic

PATIENCE_SECONDS = 5.0


class PubSubContract:
    """The contract of `publish`, `listen` and `wait`."""

    async def test_a_published_topic_wakes_a_waiting_listener(self, pubsub: PubSub) -> None:
        with pubsub.listen((WORK,)) as listener:
            asyncio.get_running_loop().call_soon(pubsub.publish, WORK)
            assert await listener.wait(PATIENCE_SECONDS) == {WORK}

    async def test_a_topic_published_before_the_wait_is_returned(self, pubsub: PubSub) -> None:
        with pubsub.listen((WORK, "batch/")) as listener:
            pubsub.publish(WORK)
            pubsub.publish(batch_topic("1"))
            pubsub.publish(batch_topic("1"))
            assert await _gather(listener, 2) == {WORK, "batch/1"}

    async def test_a_topic_is_returned_once(self, pubsub: PubSub) -> None:
        with pubsub.listen((WORK,)) as listener:
            pubsub.publish(WORK)
            assert await listener.wait(PATIENCE_SECONDS) == {WORK}
            assert await listener.wait(0.01) == frozenset()

    async def test_only_topics_with_the_prefix_are_received(self, pubsub: PubSub) -> None:
        with pubsub.listen((batch_topic("1"),)) as one, pubsub.listen(()) as none:
            pubsub.publish(WORK)
            pubsub.publish(batch_topic("2"))
            pubsub.publish(batch_topic("1"))
            assert await one.wait(PATIENCE_SECONDS) == {"batch/1"}
            assert await none.wait(0.01) == frozenset()

    async def test_every_listener_receives_the_topic(self, pubsub: PubSub) -> None:
        with pubsub.listen((WORK,)) as first, pubsub.listen((WORK,)) as second:
            pubsub.publish(WORK)
            assert await first.wait(PATIENCE_SECONDS) == {WORK}
            assert await second.wait(PATIENCE_SECONDS) == {WORK}

    async def test_a_timeout_returns_no_topics(self, pubsub: PubSub) -> None:
        with pubsub.listen((WORK,)) as listener:
            assert await listener.wait(0.01) == frozenset()
            assert await listener.wait(0.0) == frozenset()

    async def test_a_cancelled_wait_loses_nothing(self, pubsub: PubSub) -> None:
        with pubsub.listen((WORK,)) as listener:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(listener.wait(PATIENCE_SECONDS), name="wait")
                group.create_task(_announce_and_cancel(pubsub, task), name="cancel")
            assert task.cancelled()
            assert await listener.wait(PATIENCE_SECONDS) == {WORK}

    async def test_publishing_without_listeners_is_harmless(self, pubsub: PubSub) -> None:
        pubsub.publish(WORK)
        with pubsub.listen((WORK,)):
            pass
        pubsub.publish(WORK)


async def _gather(listener: Listener, count: int) -> frozenset[str]:
    heard: frozenset[str] = frozenset()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(heard) < count:
            heard |= await listener.wait(PATIENCE_SECONDS)
    return heard


async def _announce_and_cancel(pubsub: PubSub, task: asyncio.Task[frozenset[str]]) -> None:
    pubsub.publish(WORK)
    task.cancel()
