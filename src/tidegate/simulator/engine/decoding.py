"""The sequences that decode: a few sums and two calendars, however many they are.

A decoding sequence computes one token in each step, so the context of all of them is a line in the
number of the step, and all that happens to one by itself is known when it begins: in which steps
its last block is full, and in which its last token comes.
"""

import heapq
from bisect import bisect_right

from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.sequence import Sequence, State


class Calendar:
    """Sequences by the number of the step in which something is due. Entries may be out of date."""

    def __init__(self) -> None:
        self._entries: dict[int, list[Sequence]] = {}
        self._steps: list[int] = []

    @property
    def next(self) -> int:
        """Return the first step that has an entry; there is one while a sequence decodes."""
        return self._steps[0]

    def note(self, step: int, sequence: Sequence) -> None:
        """Add an entry."""
        found = self._entries.get(step)
        if found is None:
            self._entries[step] = [sequence]
            heapq.heappush(self._steps, step)
        else:
            found.append(sequence)

    def take(self, step: int) -> list[Sequence]:
        """Take out the entries of a step."""
        return self._entries.pop(step, [])

    def pass_over(self, step: int) -> None:
        """Forget the steps up to this one: their entries were taken."""
        while self._steps and self._steps[0] <= step:
            heapq.heappop(self._steps)


class Decoding:
    """All sequences that decode.

    Attributes:
        count: how many they are.
        finishing: in which step the last token of each comes.
        grown_to: the last step for which each has been given the block that it needs.
    """

    def __init__(self, cost: Cost, block_size: int) -> None:
        self._cost = cost
        self._block_size = block_size
        self.count = 0
        # The context that they attend to in step s is `_offset + count * s`.
        self._offset = 0
        # Who needs a new block in a step s stands under s modulo the size of a block.
        self._growing: list[dict[int, Sequence]] = [{} for _ in range(block_size)]
        self.grown_to = 0
        self.finishing = Calendar()

    def start(self, sequence: Sequence, step: int) -> None:
        """Let a sequence decode: its first token came out of the step that has just ended."""
        tokens = sequence.tokens
        sequence.started = step
        sequence.base = step - sequence.generated_before - 1
        sequence.state = State.DECODING
        self.count += 1
        self._offset += tokens - step
        # In step s it computes the token at place tokens + (s - step) - 1.
        self._growing[(step + 1 - tokens) % self._block_size][sequence.order] = sequence
        self.finishing.note(sequence.base + sequence.request.output_tokens, sequence)

    def leave(self, sequence: Sequence) -> None:
        """Let a sequence decode no longer; its state is set by the caller."""
        self.count -= 1
        place = sequence.tokens - sequence.started
        self._offset -= place
        del self._growing[(1 - place) % self._block_size][sequence.order]

    def due(self, step: int) -> dict[int, Sequence]:
        """Return who needs a new block in a step."""
        return self._growing[step % self._block_size]

    def growth(self, step: int, steps: int, blocks_max: int) -> tuple[int, int]:
        """Return for how many of `count` steps after `step` there are blocks, and their number."""
        rounds, rest = divmod(steps, self._block_size)
        needed = rounds * self.count
        for later in range(step + 1, step + rest + 1):
            needed += len(self.due(later))
        if needed <= blocks_max:
            return steps, needed
        needed = 0
        for later in range(step + 1, step + steps + 1):
            due = len(self.due(later))
            if needed + due > blocks_max:
                return later - 1 - step, needed
            needed += due
        raise AssertionError(needed)

    def blocks_of(self, sequence: Sequence) -> int:
        """Return how many blocks a sequence has been given up to the step `grown_to`."""
        return self.full_blocks_of(sequence) + 1

    def full_blocks_of(self, sequence: Sequence) -> int:
        """Return how many of its blocks are full when the step `grown_to` begins."""
        return (sequence.tokens - sequence.started + self.grown_to - 1) // self._block_size

    def context(self, step: int) -> int:
        """Return how many tokens of context all attend to in a step."""
        return self._offset + self.count * step

    def pass_over(self, step: int) -> None:
        """Forget what was due up to this step."""
        self.finishing.pass_over(step)

    def time_of(self, steps: int, step: int) -> int:
        """Return the picoseconds of `count` steps after `step`, if they only decode.

        It is an arithmetic series, exact in integers.
        """
        cost, count = self._cost, self.count
        context = steps * (self._offset + count * step) + count * steps * (steps + 1) // 2
        each = cost.fixed_ps + cost.decode_seq_ps * count
        return steps * each + cost.context_token_ps * context

    def fitting(self, steps: int, step: int, room_ps: int) -> int:
        """Return how many of `count` steps after `step` fit into a time."""
        if steps < 1 or self.time_of(steps, step) <= room_ps:
            return steps
        return bisect_right(range(1, steps), room_ps, key=lambda count: self.time_of(count, step))
