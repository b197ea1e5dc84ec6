"""The contract of every signal carrier, as far as it delivers.

Subclass `SignalsContract` in a test module that has a fixture `signals`. A carrier may lose
announcements; the contract is run where nothing makes it.
"""

# ruff: noqa: D102 -- these are tests: their names are sentences, their numbers plain

import asyncio

from tidegate.signals.base import WORK, Listener, Signals, batch_topic

PATIENCE_SECONDS = 5.0


class SignalsContract:
    """What `notify`, `listen` and `wait` promise."""

    async def test_an_announcement_wakes_who_waits(self, signals: Signals) -> None:
        with signals.listen((WORK,)) as listener:
            asyncio.get_running_loop().call_soon(signals.notify, WORK)
            assert await listener.wait(PATIENCE_SECONDS) == {WORK}

    async def test_an_earlier_announcement_is_remembered(self, signals: Signals) -> None:
        with signals.listen((WORK, "batch/")) as listener:
            signals.notify(WORK)
            signals.notify(batch_topic("1"))
            signals.notify(batch_topic("1"))
            assert await _gather(listener, 2) == {WORK, "batch/1"}

    async def test_an_announcement_is_told_once(self, signals: Signals) -> None:
        with signals.listen((WORK,)) as listener:
            signals.notify(WORK)
            assert await listener.wait(PATIENCE_SECONDS) == {WORK}
            assert await listener.wait(0.01) == frozenset()

    async def test_only_topics_with_the_prefix_are_heard(self, signals: Signals) -> None:
        with signals.listen((batch_topic("1"),)) as one, signals.listen(()) as none:
            signals.notify(WORK)
            signals.notify(batch_topic("2"))
            signals.notify(batch_topic("1"))
            assert await one.wait(PATIENCE_SECONDS) == {"batch/1"}
            assert await none.wait(0.01) == frozenset()

    async def test_every_listener_hears(self, signals: Signals) -> None:
        with signals.listen((WORK,)) as first, signals.listen((WORK,)) as second:
            signals.notify(WORK)
            assert await first.wait(PATIENCE_SECONDS) == {WORK}
            assert await second.wait(PATIENCE_SECONDS) == {WORK}

    async def test_time_runs_out_quietly(self, signals: Signals) -> None:
        with signals.listen((WORK,)) as listener:
            assert await listener.wait(0.01) == frozenset()
            assert await listener.wait(0.0) == frozenset()

    async def test_a_cancelled_wait_loses_nothing(self, signals: Signals) -> None:
        with signals.listen((WORK,)) as listener:
            async with asyncio.TaskGroup() as group:
                task = group.create_task(listener.wait(PATIENCE_SECONDS), name="wait")
                group.create_task(_announce_and_cancel(signals, task), name="cancel")
            assert task.cancelled()
            assert await listener.wait(PATIENCE_SECONDS) == {WORK}

    async def test_announcing_to_nobody_is_harmless(self, signals: Signals) -> None:
        signals.notify(WORK)
        with signals.listen((WORK,)):
            pass
        signals.notify(WORK)


async def _gather(listener: Listener, count: int) -> frozenset[str]:
    heard: frozenset[str] = frozenset()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(heard) < count:
            heard |= await listener.wait(PATIENCE_SECONDS)
    return heard


async def _announce_and_cancel(signals: Signals, task: asyncio.Task[frozenset[str]]) -> None:
    signals.notify(WORK)
    task.cancel()
