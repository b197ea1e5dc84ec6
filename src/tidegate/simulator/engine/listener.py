"""What an engine reports to its listeners; every method may be left as it is."""

from collections.abc import Sequence as Several
from typing import NamedTuple

from typing_extensions import override

from tidegate.simulator.engine.sequence import Sequence


class Steps(NamedTuple):
    """Steps of an engine, one after the other. Only one at a time prefills tokens.

    `first_ps` and `last_ps` are how long the first and the last of them took; in between it grows
    evenly.
    """

    number: int
    first_ps: int
    last_ps: int
    decoding: int
    prefilled: int


class Listener:
    """Receives what happens, in order. Times are picoseconds of the engine.

    Attributes:
        hears_blocks: whether it receives blocks. That is more work for the engine.
    """

    hears_blocks = False

    def stepped(self, steps: Steps) -> None:
        """Record that steps have ended."""

    def scheduled(self, sequence: Sequence, at_ps: int) -> None:
        """Record that a sequence left the queue for the first time."""

    def first_token(self, sequence: Sequence, at_ps: int) -> None:
        """Record the first token."""

    def finished(self, sequence: Sequence, at_ps: int) -> None:
        """Record that all its tokens are there."""

    def preempted(self, sequence: Sequence, at_ps: int) -> None:
        """Record that it lost its blocks and goes back to the queue."""

    def blocks_stored(self, sequence: Sequence, indexes: list[int]) -> None:
        """Record that other sequences can find these full blocks from now on."""

    def block_removed(self, known: int) -> None:
        """Record that a block of this hash is gone."""

    def cache_cleared(self) -> None:
        """Record that no block can be found any more."""


class Listeners(Listener):
    """Several listeners, called one after the other."""

    def __init__(self, members: Several[Listener]) -> None:
        self._members = tuple(members)
        self.hears_blocks = any(member.hears_blocks for member in members)

    @override
    def stepped(self, steps: Steps) -> None:
        for member in self._members:
            member.stepped(steps)

    @override
    def scheduled(self, sequence: Sequence, at_ps: int) -> None:
        for member in self._members:
            member.scheduled(sequence, at_ps)

    @override
    def first_token(self, sequence: Sequence, at_ps: int) -> None:
        for member in self._members:
            member.first_token(sequence, at_ps)

    @override
    def finished(self, sequence: Sequence, at_ps: int) -> None:
        for member in self._members:
            member.finished(sequence, at_ps)

    @override
    def preempted(self, sequence: Sequence, at_ps: int) -> None:
        for member in self._members:
            member.preempted(sequence, at_ps)

    @override
    def blocks_stored(self, sequence: Sequence, indexes: list[int]) -> None:
        for member in self._members:
            member.blocks_stored(sequence, indexes)

    @override
    def block_removed(self, known: int) -> None:
        for member in self._members:
            member.block_removed(known)

    @override
    def cache_cleared(self) -> None:
        for member in self._members:
            member.cache_cleared()
