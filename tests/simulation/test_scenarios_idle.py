"""What a processor asks of the ledger while there is nothing to do, in virtual time."""

import asyncio
from collections import Counter
from inspect import iscoroutinefunction

from testkit.scenarios.scenario import at_once, lines, now, scenario
from tidegate.stores.base import Store
from tidegate.testing.deployment import Deployment
from tidegate.testing.loop import in_virtual_time

SECONDS = 300.0
CALLS_A_SECOND_MAX = 2.0


def counted(store: Store) -> Counter[str]:
    """Count from now on the calls of each verb, but for those that a verb makes of another."""
    found: Counter[str] = Counter()
    inside: list[str] = []

    def count(verb: str) -> None:
        method = getattr(store, verb)

        async def call(*arguments: object, **named: object) -> object:
            if not inside:
                found[verb] += 1
            inside.append(verb)
            try:
                return await method(*arguments, **named)
            finally:
                inside.pop()

        setattr(store, verb, call)

    for verb in dir(store):
        if not verb.startswith("_") and iscoroutinefunction(getattr(store, verb)):
            count(verb)
    return found


@scenario
async def test_an_idle_processor_makes_few_calls_and_only_membership_writes(
    world: Deployment,
) -> None:
    async with world.processor(at_once):
        await world.end_of((await world.submit(lines(5))).id)
        await asyncio.sleep(5.0)
        calls = counted(world.store)
        await asyncio.sleep(SECONDS)
        assert set(calls) == {"poll", "renew_membership"}
        assert calls.total() <= CALLS_A_SECOND_MAX * SECONDS


@in_virtual_time
async def test_a_signal_wakes_an_idle_processor_immediately() -> None:
    world = Deployment.make()
    async with world.processor(at_once):
        await asyncio.sleep(30.1)
        began = now()
        await world.end_of((await world.submit(lines(5))).id)
        # The commit waits for a while for more results; no poll interval passes.
        assert now() - began < 0.2
