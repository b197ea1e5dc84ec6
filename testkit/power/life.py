"""A life on one machine, and what must be true if its power is cut at any operation.

The life is lived once, without a cut; the disk keeps a tape of it. Then, for every operation, the
disk is brought to that moment, loses power, and is opened again: all must be as it was after the
last step that was acknowledged, or after the one that was under way, and nothing in between. And
the work goes on to its end from there, with one result for every line.
"""

import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path

from testkit.power.acts import Acts, View
from testkit.power.disk import PowerLossDisk, PowerLost
from testkit.power.sweeps import check_swept, sweep
from tidegate.testing.contract.stores import ManualClock

Open = Callable[[PowerLossDisk, ManualClock], AbstractAsyncContextManager[Acts]]
Stage = Callable[[Acts], AsyncIterator[str]]
MakeChance = Callable[[int], random.Random | None]

# After so long the claims of a process that died have expired.
EXPIRED_SECONDS = 60.0
SECOND_CUT_WITHIN_MAX = 200
SHARE_OPENED_AGAIN = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A step was acknowledged after this many operations, and this was to be seen."""

    step: str
    operations: int
    view: View


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What happened, and every operation that it took."""

    disk: PowerLossDisk
    moments: tuple[Moment, ...]

    @property
    def operations(self) -> int:
        """Return how many operations the life took."""
        return self.disk.operations

    def around(self, operations: int) -> tuple[Moment, ...]:
        """Return the last moment within this many operations, and the one after it."""
        passed = sum(moment.operations <= operations for moment in self.moments)
        return self.moments[passed - 1 : passed + 1]


async def live(root: Path, open_machine: Open, stages: tuple[Stage, ...]) -> Life:
    """Live through every stage; the machine is shut down and started again between them."""
    disk = PowerLossDisk(root)
    moments = [Moment(step="an empty disk", operations=0, view=View())]
    for stage in stages:
        async with open_machine(disk, ManualClock()) as acts:
            async for step in stage(acts):
                spent = disk.operations
                moments.append(Moment(step=step, operations=spent, view=await acts.view()))
    return Life(disk=disk, moments=tuple(moments))


async def cut_everywhere(
    life: Life, open_machine: Open, make_chance: MakeChance | None = None
) -> int:
    """Cut the power after each operation of a life, none included; return how many cuts differed.

    Without `make_chance` nothing survives that was not flushed: then cuts between which nothing was
    flushed and no step ended leave the same disk under the same promises, and are one. With it what
    survives is drawn for each operation for which it gives a chance, and the successor loses its
    power as well.

    Raises:
        AssertionError: a promise was not kept; its text says where.
    """
    replayed = PowerLossDisk(life.disk.root)
    seen: tuple[int, tuple[Moment, ...]] | None = None
    count = 0
    for operations in range(life.operations + 1):
        if operations:
            life.disk.tape[operations - 1](replayed)
        around = life.around(operations)
        chance = None if make_chance is None else make_chance(operations)
        state = (replayed.flushes, around)
        if chance is None and (make_chance is not None or state == seen):
            continue
        seen = state
        count += 1
        try:
            await _cut(replayed, open_machine, around, chance)
        except Exception as error:
            steps = " and ".join(f"'{moment.step}'" for moment in around)
            raise AssertionError(f"cut after operation {operations}, at {steps}") from error
    return count


async def _cut(
    disk: PowerLossDisk,
    open_machine: Open,
    around: tuple[Moment, ...],
    chance: random.Random | None,
) -> None:
    left = disk.restarted(chance)
    clock = ManualClock()
    try:
        async with open_machine(left, clock) as acts:
            seen = await acts.view()
            assert any(seen == moment.view for moment in around), seen
            if chance is not None:
                left.cut_power_at(left.operations + chance.randint(1, SECOND_CUT_WITHIN_MAX))
            ended = await _end(acts, clock)
    except PowerLost:
        left = left.restarted(chance)
        async with open_machine(left, clock) as acts:
            ended = await _end(acts, clock)
    if chance is None or chance.random() >= SHARE_OPENED_AGAIN:
        return
    # What was acknowledged meanwhile is on the disk as well.
    async with open_machine(left.restarted(None), clock) as acts:
        assert await acts.view() == ended


async def _end(acts: Acts, clock: ManualClock) -> View:
    clock.turn(EXPIRED_SECONDS)
    await acts.run_to_the_end()
    await acts.check_ended()
    ended = await acts.view()
    await sweep(acts)
    assert await acts.view() == ended, "a sweep took what can be seen"
    await check_swept(acts)
    return ended
