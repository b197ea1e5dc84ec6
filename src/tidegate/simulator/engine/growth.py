"""How decoding sequences come by blocks: one each time its last is full, from others if need be."""

from collections.abc import Callable
from operator import attrgetter

from tidegate.simulator.engine.decoding import Decoding
from tidegate.simulator.engine.memory import Memory
from tidegate.simulator.engine.running import Running
from tidegate.simulator.engine.sequence import Sequence, State


class Growth:
    """Hands out blocks for steps to come. `preempt` sends a sequence back to the queue."""

    def __init__(
        self,
        memory: Memory,
        decoding: Decoding,
        running: Running,
        preempt: Callable[[Sequence], None],
    ) -> None:
        self._memory = memory
        self._pool = memory.pool
        self._decoding = decoding
        self._running = running
        self._preempt = preempt

    def through(self, step: int, steps: int) -> int:
        """Hand out the blocks of `count` steps after `step`; return for how many there are enough.

        Nobody is preempted.
        """
        decoding = self._decoding
        if self._memory.is_heard:
            for later in range(step + 1, step + steps + 1):
                if len(decoding.due(later)) > self._pool.free:
                    return later - 1 - step
                self.into(later)
        elif steps > 0:
            steps, blocks = decoding.growth(step, steps, self._pool.free)
            self._pool.set_aside(blocks)
            decoding.grown_to = step + steps
        return steps

    def into(self, step: int) -> bool:
        """Give each sequence whose last block is full a new one for a step, once.

        Returns whether somebody was preempted for it.
        """
        decoding = self._decoding
        if decoding.grown_to >= step:
            return False
        preempted = False
        due = decoding.due(step)
        if due and not self._memory.is_heard and len(due) <= self._pool.free:
            self._pool.set_aside(len(due))
        elif due:
            preempted = self._one_by_one(sorted(due.values(), key=attrgetter("turn")))
        decoding.grown_to = step
        return preempted

    def make_room(self, blocks: int, for_whom: Sequence) -> bool:
        """Preempt until `count` blocks are free, or it was its own turn; return whether one was."""
        preempted = False
        while self._pool.free < blocks:
            victim = self._running.victim()
            preempted = True
            self._preempt(victim)
            if victim is for_whom:
                break
        return preempted

    def _one_by_one(self, due: list[Sequence]) -> bool:
        preempted = False
        for sequence in due:
            if sequence.state is not State.DECODING:
                continue  # It was preempted for one before it.
            self._memory.settle(sequence)
            self._memory.store_full(sequence)
            preempted = self.make_room(1, sequence) or preempted
            if sequence.state is State.DECODING:
                self._memory.lengthen(sequence, 1)
        return preempted
