"""Sequences whose keys and values were computed elsewhere and are on their way here."""

import heapq

from tidegate.simulator.engine.sequence import Sequence, State


class Transfers:
    """Sequences by the time at which their blocks have come. Aborted ones stay until then."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Sequence]] = []

    def __len__(self) -> int:
        return sum(sequence.state is State.ARRIVING for _, _, sequence in self._heap)

    @property
    def next_ps(self) -> int | None:
        """Return when the next ones have come; None when nothing is on its way."""
        return self._heap[0][0] if self._heap else None

    def begin(self, sequence: Sequence, now_ps: int) -> None:
        """Let a sequence wait for its blocks."""
        delay = sequence.request.transfer_ps
        assert delay is not None, sequence.request.key
        sequence.state = State.ARRIVING
        heapq.heappush(self._heap, (now_ps + delay, sequence.order, sequence))

    def take_arrived(self, now_ps: int) -> list[Sequence]:
        """Take out those whose blocks have come."""
        arrived = []
        while self._heap and self._heap[0][0] <= now_ps:
            sequence = heapq.heappop(self._heap)[2]
            if sequence.state is State.ARRIVING:
                arrived.append(sequence)
        return arrived
