"""The blocks of sequences: taken, found again, stored under their hashes, let go.

If a listener receives blocks, each is hashed when it is full. Otherwise blocks are hashed when a
later prompt might find them: see `runs`.
"""

from tidegate.simulator.engine.blocks import BlockPool
from tidegate.simulator.engine.decoding import Decoding
from tidegate.simulator.engine.hashes import ROOT, block_key, known_hash_of
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.runs import Run
from tidegate.simulator.engine.sequence import Sequence, State
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.engine.tokens import TOKEN_BYTES


class Memory:
    """What an engine does with its blocks, in terms of sequences.

    Attributes:
        is_heard: whether a listener receives blocks.
    """

    def __init__(self, settings: EngineSettings, listener: Listener, decoding: Decoding) -> None:
        self.pool = BlockPool(settings.kv_blocks)
        self.is_heard = listener.hears_blocks
        if self.is_heard:
            self.pool.removed = []
        self._size = settings.block_size
        self._caches = settings.prefix_caching
        self._listener = listener
        self._decoding = decoding
        self._runs = self.pool.runs
        self._run_of: dict[int, Run] = {}
        self._serial = 0

    def blocks_for(self, tokens: int) -> int:
        """Return how many blocks `tokens` tokens need."""
        return -(-tokens // self._size)

    def lengthen(self, sequence: Sequence, blocks: int) -> None:
        """Give a sequence more blocks; there are that many."""
        self.pool.set_aside(blocks)
        sequence.blocks += self.pool.draw(blocks)
        if self.pool.removed:
            for known in self.pool.removed:
                self._listener.block_removed(known)
            self.pool.removed.clear()

    def settle(self, sequence: Sequence) -> None:
        """Give a decoding sequence the blocks that were set aside for it."""
        missing = self._decoding.blocks_of(sequence) - len(sequence.blocks)
        if missing > 0:
            sequence.blocks += self.pool.draw(missing)

    def store(self, sequence: Sequence, tokens: int) -> None:
        """Let the full blocks among its first tokens be found."""
        first, blocks = sequence.stored, tokens // self._size
        if blocks <= first or not self._caches:
            return
        sequence.stored = blocks
        if self.is_heard:
            hashes = sequence.hashes(blocks, self._size)
            stored = self.pool.store(sequence.blocks, hashes, first, sequence.serial)
            if stored:
                self._listener.blocks_stored(sequence, stored)

    def store_full(self, sequence: Sequence) -> None:
        """Let all its blocks be found, for they are full."""
        self.store(sequence, len(sequence.blocks) * self._size)

    def known(self, sequence: Sequence) -> list[int]:
        """Return the blocks of its beginning that are there; its last token is computed anyway."""
        if not self._caches or not sequence.request.reads_cache:
            return []
        size = self._size
        blocks = (sequence.tokens - 1) // size
        if self.is_heard:
            return self.pool.find(sequence.hashes(blocks, size))
        runs, block_of, extra = self._runs.by_key, self.pool.block_of, sequence.extra
        found: list[int] = []
        hashes: list[int] = []
        known = ROOT
        ids, width = sequence.ids(0, blocks * size), TOKEN_BYTES * size
        for start in range(0, len(ids), width):
            key = (known ^ extra).to_bytes(8, "little") + ids[start : start + width]
            if key in runs:
                self._open(key)
            known = known_hash_of(key)
            block = block_of(known)
            if block is None:
                break
            found.append(block)
            hashes.append(known)
        sequence.known_hashes = hashes
        return found

    def fits(self, known: list[int], tokens: int) -> bool:
        """Return whether this many tokens have room if these blocks are shared."""
        needed = self.blocks_for(tokens) - len(known)
        return needed + self.pool.idle_among(known) <= self.pool.free

    def share(self, sequence: Sequence, known: list[int]) -> None:
        """Let a sequence begin with known blocks."""
        self.pool.share(known)
        self._serial += 1
        sequence.serial = self._serial
        sequence.blocks = list(known)
        sequence.stored = len(known)
        sequence.computed = len(known) * self._size
        if self._caches and not self.is_heard:
            self._begin_run(sequence, len(known))

    def release(self, sequence: Sequence) -> None:
        """Let all blocks of a sequence go."""
        run = self._run_of.pop(sequence.order, None)
        if run is not None:
            if sequence.stored > run.start:
                run.leave_behind(sequence.blocks[run.start : sequence.stored], self._size)
                self.pool.leave_behind(run)
            else:
                self._runs.drop(run)
        self.pool.let_go(sequence.blocks)
        sequence.blocks = []
        sequence.computed = sequence.stored = 0

    def _begin_run(self, sequence: Sequence, start: int) -> None:
        """Know the blocks of a sequence from an index on by the first of them."""
        size = self._size
        known = sequence.known_hashes[start - 1] if start else ROOT
        first = sequence.content.ids(start * size, (start + 1) * size)
        run = Run(block_key(known, first, sequence.extra), start, sequence)
        self._run_of[sequence.order] = run
        self._runs.add(run)

    def _open(self, key: bytes) -> None:
        """Hash the blocks of all runs that begin with this one."""
        size = self._size
        for run in self._runs.take(key):
            sequence = run.sequence
            if sequence is None:
                self.pool.store(run.blocks, run.hashes(size), 0, run.serial)
                continue
            stop = sequence.stored
            if sequence.state is State.DECODING:
                stop = self._decoding.full_blocks_of(sequence)
                self.settle(sequence)
            if stop == run.start:
                self._runs.add(run)
                continue
            hashes = sequence.hashes(stop, size)
            self.pool.store(sequence.blocks, hashes, run.start, run.serial)
            self._begin_run(sequence, stop)
