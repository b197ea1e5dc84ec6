"""The blocks of sequences: taken, found again, stored under their hashes, let go."""

from tidegate.simulator.engine.blocks import BlockPool
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.sequence import Sequence
from tidegate.simulator.engine.settings import EngineSettings


class Memory:
    """What an engine does with its blocks, told in sequences."""

    def __init__(self, settings: EngineSettings, listener: Listener) -> None:
        self.pool = BlockPool(settings.kv_blocks)
        self._size = settings.block_size
        self._caches = settings.prefix_caching
        self._listener = listener

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks so many tokens need."""
        return -(-tokens // self._size)

    def lengthen(self, sequence: Sequence, blocks: int) -> None:
        """Give a sequence more blocks; there are that many."""
        sequence.blocks += self.pool.take(blocks)
        if self.pool.removed:
            for known in self.pool.removed:
                self._listener.block_removed(known)
            self.pool.removed.clear()

    def store(self, sequence: Sequence, tokens: int) -> None:
        """Let the full blocks among its first tokens be found."""
        first, blocks = sequence.stored, tokens // self._size
        if blocks <= first or not self._caches:
            return
        hashes = sequence.hashes(blocks, self._size)
        stored = self.pool.store(sequence.blocks, hashes, first)
        sequence.stored = blocks
        if stored:
            self._listener.blocks_stored(sequence, stored)

    def known(self, sequence: Sequence) -> list[int]:
        """Return the blocks of its beginning that are there; its last token is computed anyway."""
        if not self._caches or not sequence.request.reads_cache:
            return []
        size = self._size
        return self.pool.find(sequence.hashes((sequence.tokens - 1) // size, size))

    def fits(self, known: list[int], tokens: int) -> bool:
        """Say whether so many tokens have room if these blocks are shared."""
        needed = self.blocks_for(tokens) - len(known)
        return needed + self.pool.idle_among(known) <= self.pool.free

    def share(self, sequence: Sequence, known: list[int]) -> None:
        """Let a sequence begin with known blocks."""
        self.pool.share(known)
        sequence.blocks = list(known)
        sequence.stored = len(known)
        sequence.computed = len(known) * self._size

    def release(self, sequence: Sequence) -> None:
        """Let all blocks of a sequence go."""
        self.pool.let_go(sequence.blocks)
        sequence.blocks = []
        sequence.computed = sequence.stored = 0
