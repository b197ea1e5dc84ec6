"""The blocks of keys and values: who holds which, which can be found again, which go first.

The design is the paged KV cache of vLLM (Kwon et al., 2023) with its prefix cache: a full block is
known by a hash over its tokens and all before them; a block that nobody holds any more stays
findable until its memory is wanted, and the one freed longest ago is taken first.
"""

from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

ROOT = 0


def block_hash(parent: int, tokens: bytes, extra: int = 0) -> int:
    """Return the 64-bit hash of a full block after `parent`; `extra` keeps adapters apart."""
    head = (parent ^ extra).to_bytes(8, "little")
    # Sums of shifted tokens, such as Python's hash of a long number, meet for everyday prompts.
    return int.from_bytes(blake2b(head + tokens, digest_size=8).digest(), "little")


class BlockPool:
    """A fixed number of blocks. What is stored and evicted goes into `removed` when it is kept."""

    def __init__(self, blocks: int) -> None:
        assert blocks > 0, blocks
        self.total = blocks
        self._fresh = 0
        self._free: OrderedDict[int, None] = OrderedDict()
        self._holders: list[int] = [0] * blocks
        self._hash_of: list[int | None] = [None] * blocks
        self._by_hash: dict[int, int] = {}
        self._twins: dict[int, list[int]] = {}
        self.removed: list[int] | None = None

    @property
    def free(self) -> int:
        """Return how many blocks nobody holds."""
        return self.total - self._fresh + len(self._free)

    @property
    def held(self) -> int:
        """Return how many blocks somebody holds."""
        return self._fresh - len(self._free)

    def take(self, count: int) -> list[int]:
        """Take blocks that nobody holds; what they were known for is forgotten."""
        assert count <= self.free, "more blocks were taken than are free"
        holders = self._holders
        fresh = min(count, self.total - self._fresh)
        taken = list(range(self._fresh, self._fresh + fresh))
        self._fresh += fresh
        next_free, hash_of = self._free.popitem, self._hash_of
        for _ in range(count - fresh):
            block = next_free(last=False)[0]
            known = hash_of[block]
            if known is not None:
                hash_of[block] = None
                self._evict(block, known)
            taken.append(block)
        for block in taken:
            holders[block] = 1
        return taken

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
        by_hash = self._by_hash
        for known in hashes:
            block = by_hash.get(known)
            if block is None:
                break
            found.append(block)
        return found

    def idle_among(self, blocks: Sequence[int]) -> int:
        """Count those of these blocks that nobody holds."""
        holders = self._holders
        return sum(not holders[block] for block in blocks)

    def share(self, blocks: Sequence[int]) -> None:
        """Hold known blocks, also."""
        for block in blocks:
            if not self._holders[block]:
                del self._free[block]
            self._holders[block] += 1

    def store(self, blocks: Sequence[int], hashes: Sequence[int], start: int) -> list[int]:
        """Let full blocks from `start` on be found by their hashes, as many as there are hashes.

        A block with the same contents as another one stands in for it once that is gone. Returns
        the indexes of those that are new.
        """
        by_hash, hash_of = self._by_hash, self._hash_of
        stored = []
        for index in range(start, len(hashes)):
            known, block = hashes[index], blocks[index]
            hash_of[block] = known
            if known in by_hash:
                self._twins.setdefault(known, []).append(block)
            else:
                by_hash[known] = block
                stored.append(index)
        return stored

    def let_go(self, blocks: Sequence[int]) -> None:
        """Hold these no longer; the last of them is reused first, for a prefix serves more."""
        holders, free = self._holders, self._free
        for block in reversed(blocks):
            left = holders[block] - 1
            assert left >= 0, "a block was freed that nobody held"
            holders[block] = left
            if not left:
                free[block] = None

    def forget(self) -> bool:
        """Forget every hash (a cache reset); False while any block is held."""
        if self.held:
            return False
        self._by_hash.clear()
        self._twins.clear()
        self._hash_of = [None] * self.total
        return True
