"""The sequences that run, in the order in which they began, and the adapters that they need."""

from collections.abc import Iterator

from tidegate.simulator.engine.sequence import Sequence
from tidegate.simulator.engine.settings import EngineSettings, Policy


class Running:
    """At most `max_num_seqs` sequences with at most `max_loras` adapters."""

    def __init__(self, settings: EngineSettings) -> None:
        self._seqs_max = settings.max_num_seqs
        self._loras_max = settings.max_loras
        self._by_priority = settings.policy is Policy.PRIORITY
        self._members: dict[int, Sequence] = {}
        self._loras: dict[str, int] = {}
        self._turns = 0

    def __len__(self) -> int:
        return len(self._members)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._members.values())

    @property
    def is_full(self) -> bool:
        """Return whether no further sequence may run."""
        return len(self._members) >= self._seqs_max

    def takes(self, sequence: Sequence) -> bool:
        """Return whether the adapter of a sequence is loaded or has room."""
        lora = sequence.request.lora
        return lora is None or lora in self._loras or len(self._loras) < self._loras_max

    def loras(self) -> list[str]:
        """Return the adapters that are there."""
        return list(self._loras)

    def enter(self, sequence: Sequence) -> None:
        """Take a sequence in, behind all others."""
        self._turns += 1
        sequence.turn = self._turns
        self._members[sequence.order] = sequence
        lora = sequence.request.lora
        if lora is not None:
            self._loras[lora] = self._loras.get(lora, 0) + 1

    def leave(self, sequence: Sequence) -> None:
        """Take a sequence out."""
        del self._members[sequence.order]
        lora = sequence.request.lora
        if lora is not None:
            self._loras[lora] -= 1
            if not self._loras[lora]:
                del self._loras[lora]

    def victim(self) -> Sequence:
        """Return who gives up its blocks first: the last comer, of the least priority."""
        if self._by_priority:
            return max(self, key=lambda sequence: (sequence.request.priority, sequence.order))
        return next(reversed(self._members.values()))
