"""The waiting queue of an engine: removal from anywhere costs the same, however long it is."""

import heapq
from collections import OrderedDict
from collections.abc import Iterator

from tidegate.simulator.engine.sequence import Sequence
from tidegate.simulator.engine.settings import Policy


class Queue:
    """Sequences that wait, by arrival or by priority. What was preempted goes before its equals."""

    def __init__(self, policy: Policy) -> None:
        self._by_priority = policy is Policy.PRIORITY
        self._members: OrderedDict[int, Sequence] = OrderedDict()
        self._heap: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._members.values())

    def push(self, sequence: Sequence) -> None:
        """Put a sequence at the end of its kind."""
        self._members[sequence.order] = sequence
        if self._by_priority:
            heapq.heappush(self._heap, (sequence.request.priority, sequence.order))

    def push_back(self, sequence: Sequence) -> None:
        """Put a sequence back before all others of its kind."""
        self.push(sequence)
        if not self._by_priority:
            self._members.move_to_end(sequence.order, last=False)

    def first(self) -> Sequence:
        """Return the next sequence without taking it."""
        if not self._by_priority:
            return next(iter(self._members.values()))
        while self._heap[0][1] not in self._members:
            heapq.heappop(self._heap)
        return self._members[self._heap[0][1]]

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out, wherever it is."""
        del self._members[sequence.order]
        if not self._members:
            self._heap.clear()
