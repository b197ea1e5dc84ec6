"""Full blocks whose hashes nobody has asked for: most are evicted before anybody does.

A lookup that finds a block has found the one before it. So the key of the first is enough; the
block of such a run. When somebody comes by with that key, the run is hashed, and its blocks are
found like all others.
"""

from tidegate.simulator.engine.hashes import block_key, known_hash_of
from tidegate.simulator.engine.sequence import Sequence
from tidegate.simulator.engine.tokens import Content


class Run:
    """The full blocks of one sequence from the one with the index `start` on.

    While a sequence holds them, it has their number, and `blocks` is empty. Afterwards they
    are `blocks`, and they are evicted from the last to the first.
    """

    __slots__ = ("blocks", "content", "extra", "key", "sequence", "serial", "start")

    def __init__(self, key: bytes, start: int, sequence: Sequence) -> None:
        self.key = key
        self.start = start
        self.serial = sequence.serial
        self.extra = sequence.extra
        self.sequence: Sequence | None = sequence
        self.content: Content | None = None
        self.blocks: list[int] = []

    def leave_behind(self, blocks: list[int], block_size: int) -> None:
        """Stay with these blocks, which the sequence lets go. They keep no more than is theirs."""
        assert self.sequence is not None
        self.blocks = blocks
        self.content = self.sequence.content.after(self.start * block_size)
        self.sequence = None

    def hashes(self, block_size: int) -> list[int]:
        """Return the hashes of `blocks`."""
        assert self.content is not None
        ids, extra = self.content.ids, self.extra
        known = known_hash_of(self.key)
        found = [known]
        for start in range(block_size, len(self.blocks) * block_size, block_size):
            known = known_hash_of(block_key(known, ids(start, start + block_size), extra))
            found.append(known)
        return found


class Runs:
    """Runs by the key of their first block. Several may begin alike."""

    def __init__(self) -> None:
        self.by_key: dict[bytes, list[Run]] = {}

    def __len__(self) -> int:
        return sum(map(len, self.by_key.values()))

    def add(self, run: Run) -> None:
        """Take a run in."""
        found = self.by_key.get(run.key)
        if found is None:
            self.by_key[run.key] = [run]
        else:
            found.append(run)

    def drop(self, run: Run) -> None:
        """Forget a run."""
        found = self.by_key[run.key]
        found.remove(run)
        if not found:
            del self.by_key[run.key]

    def take(self, key: bytes) -> list[Run]:
        """Take out the runs that begin with a block."""
        return self.by_key.pop(key, [])

    def clear(self) -> None:
        """Forget all runs."""
        self.by_key.clear()
