"""Scenarios run with signals, or with signals that deliver nothing."""

import pytest

from testkit.scenarios.scenario import now, run_scenario, with_signals
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.testing.deployment import Deployment
from tidegate.testing.pubsub import SilentSignals


@pytest.mark.parametrize(("deaf", "kind"), [(False, MemoryPubSub), (True, SilentSignals)])
def test_a_scenario_runs_with_the_signals_of_its_block(*, deaf: bool, kind: type[object]) -> None:
    heard: list[object] = []

    async def story(world: Deployment) -> None:
        heard.append(world.pubsub)

    with with_signals(deaf=deaf):
        run_scenario(story)
    run_scenario(story)
    assert [type(signals) for signals in heard] == [kind, MemoryPubSub]


def test_silent_signals_let_a_listener_time_out_without_topics() -> None:
    async def story(world: Deployment) -> None:
        with world.pubsub.listen(("work",)) as listener:
            world.pubsub.publish("work")
            assert await listener.wait(2.0) == frozenset()
            assert now() == 2.0
            assert await listener.wait(-1.0) == frozenset()

    with with_signals(deaf=True):
        run_scenario(story)
