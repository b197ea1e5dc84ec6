"""The blocks of keys and values: who holds which, which can be found again, which go first.

The design is the paged KV cache of vLLM (Kwon et al., 2023) with its prefix cache: a full block is
known by a hash over its tokens and all before them; a block that nobody holds any more stays
findable until its memory is wanted, and the one freed longest ago is taken first. Of blocks with
the same contents the one stands for all whose sequence came first.
"""

from array import array
from bisect import insort
from collections import OrderedDict
from collections.abc import Sequence

from tidegate.simulator.engine.runs import Run, Runs


class BlockPool:
    """A fixed number of blocks. What is stored and evicted goes into `removed` when it is kept.

    Attributes:
        runs: full blocks that are known without a hash.
        block_of: returns the block that stands for a hash, or None.
    """

    def __init__(self, blocks: int) -> None:
        assert blocks > 0, blocks
        self.total = blocks
        self.runs = Runs()
        self.removed: list[int] | None = None
        self._fresh = 0
        self._free: OrderedDict[int, None] = OrderedDict()
        self._set_aside: list[int] = []
        # How many hold a block besides the first.
        self._sharers = array("I", [0]) * blocks
        self._known_as: list[int | Run | None] = [None] * blocks
        self._serials = array("Q", [0]) * blocks
        self._by_hash: dict[int, int] = {}
        self._twins: dict[int, list[int]] = {}
        self.block_of = self._by_hash.get

    @property
    def free(self) -> int:
        """Return how many blocks nobody holds."""
        return self.total - self._fresh + len(self._free)

    @property
    def held(self) -> int:
        """Return how many blocks somebody holds, or has set aside."""
        return self._fresh - len(self._free)

    @property
    def known(self) -> int:
        """Count the blocks that can be found."""
        return sum(known is not None for known in self._known_as)

    def set_aside(self, count: int) -> None:
        """Take blocks that nobody holds; what they were known for is forgotten.

        Who of several gets which of them can be said later: blocks are alike.
        """
        assert count <= self.free, "more blocks were taken than are free"
        fresh = min(count, self.total - self._fresh)
        ready, known_as = self._set_aside, self._known_as
        ready += range(self._fresh, self._fresh + fresh)
        self._fresh += fresh
        next_free = self._free.popitem
        for _ in range(count - fresh):
            block = next_free(last=False)[0]
            known = known_as[block]
            if known is not None:
                known_as[block] = None
                if isinstance(known, int):
                    self._evict(block, known)
                else:
                    last = known.blocks.pop()
                    assert last == block, "a run is evicted from its end"
                    if not known.blocks:
                        self.runs.drop(known)
            ready.append(block)

    def draw(self, count: int) -> list[int]:
        """Return some of those that were set aside."""
        left = len(self._set_aside) - count
        assert left >= 0, "more blocks were drawn than were set aside"
        drawn = self._set_aside[left:]
        del self._set_aside[left:]
        return drawn

    def _evict(self, block: int, known: int) -> None:
        twins = self._twins.get(known)
        if twins is None:
            del self._by_hash[known]
            if self.removed is not None:
                self.removed.append(known)
            return
        if self._by_hash[known] == block:
            self._by_hash[known] = twins.pop(0)
        else:
            twins.remove(block)
        if not twins:
            del self._twins[known]

    def find(self, hashes: Sequence[int]) -> list[int]:
        """Return the known blocks of the longest run of these hashes from the first on."""
        found: list[int] = []
        for known in hashes:
            block = self.block_of(known)
            if block is None:
                break
            found.append(block)
        return found

    def idle_among(self, blocks: Sequence[int]) -> int:
        """Count those of these blocks that nobody holds."""
        return sum(map(self._free.__contains__, blocks))

    def share(self, blocks: Sequence[int]) -> None:
        """Hold known blocks, also."""
        free, sharers = self._free, self._sharers
        for block in blocks:
            if block in free:
                del free[block]
            else:
                sharers[block] += 1

    def store(
        self, blocks: Sequence[int], hashes: Sequence[int], start: int, serial: int
    ) -> list[int]:
        """Let full blocks from `start` on be found by their hashes, as many as there are hashes.

        A block with the same contents as another one stands in for it once that is gone; the one
        with the lesser `serial` goes first. Returns the indexes of those that are new.
        """
        by_hash, known_as, serials = self._by_hash, self._known_as, self._serials
        stored = []
        for index in range(start, len(hashes)):
            known, block = hashes[index], blocks[index]
            known_as[block] = known
            serials[block] = serial
            first = by_hash.setdefault(known, block)
            if first == block:
                stored.append(index)
            else:
                self._add_twin(known, first, block)
        return stored

    def _add_twin(self, known: int, first: int, block: int) -> None:
        serials = self._serials
        if serials[block] < serials[first]:
            self._by_hash[known] = block
            first, block = block, first
        insort(self._twins.setdefault(known, []), block, key=serials.__getitem__)

    def leave_behind(self, run: Run) -> None:
        """Let the blocks of a run be found by it; they are let go next."""
        known_as = self._known_as
        for block in run.blocks:
            known_as[block] = run

    def let_go(self, blocks: Sequence[int]) -> None:
        """Hold these no longer; the last of them is reused first, for a prefix serves more."""
        sharers, free = self._sharers, self._free
        before, freed = len(free), 0
        for block in reversed(blocks):
            if sharers[block]:
                sharers[block] -= 1
            else:
                free[block] = None
                freed += 1
        assert len(free) == before + freed, "a block was freed that nobody held"

    def forget(self) -> bool:
        """Forget every hash (a cache reset); False while any block is held."""
        if self.held:
            return False
        self._by_hash.clear()
        self._twins.clear()
        self.runs.clear()
        self._known_as = [None] * self.total
        return True
