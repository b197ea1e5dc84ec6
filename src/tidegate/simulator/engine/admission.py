"""How sequences come in: out of the queue, from elsewhere, and through their prompts in chunks."""

from dataclasses import dataclass

from tidegate.simulator.engine.counts import Counts
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.memory import Memory
from tidegate.simulator.engine.queue import Queue
from tidegate.simulator.engine.running import Running
from tidegate.simulator.engine.sequence import Sequence, State
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.engine.transfers import Transfers

Chunks = list[tuple[Sequence, int]]


@dataclass(slots=True, eq=False)
class Flight:
    """A step that has begun: when it ends, and whose prompts it computes."""

    took_ps: int
    end_ps: int
    decoding: int
    chunks: Chunks


class Admission:
    """Sequences that wait, and those whose prompt is being computed.

    Attributes:
        partial: the sequence whose prompt takes more than one step; at most one has such.
        is_blocked: there was no room for the first in the queue, and nothing became free since.
        is_held: no sequence is admitted, although there is room.
    """

    def __init__(
        self,
        settings: EngineSettings,
        memory: Memory,
        running: Running,
        counts: Counts,
        listener: Listener,
    ) -> None:
        self._block_size = settings.block_size
        self._memory = memory
        self._running = running
        self._counts = counts
        self._listener = listener
        self.queue = Queue(settings.policy)
        self.arriving = Transfers()
        self.partial: Sequence | None = None
        self.is_blocked = False
        self.is_held = False

    def take_in_arrived(self, now_ps: int) -> None:
        """Queue, first of all, the sequences whose blocks have come: one token is left to do."""
        for sequence in self.arriving.take_arrived(now_ps):
            sequence.computed = sequence.tokens - 1
            self._memory.store(sequence, sequence.computed)
            sequence.state = State.WAITING
            self.queue.push_back(sequence)
            self.is_blocked = False

    def reclaim(self, now_ps: int) -> bool:
        """Take the blocks of a waiting sequence, if no other can run; return whether one had any.

        What came from elsewhere may stand behind one that needs more blocks than are left.
        """
        if self.is_held or self.arriving.next_ps is not None:
            return False
        for sequence in reversed(tuple(self.queue)):
            if sequence.blocks:
                self._memory.release(sequence)
                sequence.preemptions += 1
                self._counts.preemptions += 1
                self.is_blocked = False
                self._listener.preempted(sequence, now_ps)
                return True
        return False

    def fill(self, sequence: Sequence, tokens: int, chunks: Chunks) -> None:
        """Compute these tokens of a sequence in the step that begins; there is room for them."""
        end = sequence.computed + tokens
        missing = self._memory.blocks_for(end) - len(sequence.blocks)
        if missing > 0:
            self._memory.lengthen(sequence, missing)
        self._memory.store(sequence, end)
        self.partial = sequence if end < sequence.tokens else None
        chunks.append((sequence, tokens))

    def admit(self, budget: int, chunks: Chunks, now_ps: int) -> None:
        """Let sequences out of the queue as far as there is room for them."""
        if self.is_blocked or self.is_held or self.partial is not None:
            return
        skipped: list[Sequence] = []
        while budget > 0 and self.queue and not self._running.is_full and self.partial is None:
            sequence = self.queue.first()
            if not self._running.takes(sequence):
                self.queue.remove(sequence)
                skipped.append(sequence)
                continue
            tokens = self._enter(sequence, budget, chunks, now_ps)
            if tokens is None:
                self.is_blocked = True
                break
            budget -= tokens
        for sequence in reversed(skipped):
            self.queue.push_back(sequence)

    def _enter(self, sequence: Sequence, budget: int, chunks: Chunks, now_ps: int) -> int | None:
        """Start a sequence; return the tokens it takes of the budget, or None: no room for it."""
        if sequence.blocks:
            tokens = min(sequence.tokens - sequence.computed, budget)  # It came with its blocks.
            self._run(sequence, now_ps)
            self.fill(sequence, tokens, chunks)
            return tokens
        known = self._memory.known(sequence)
        hits = len(known) * self._block_size
        remote = sequence.request.transfer_ps is not None and not sequence.preemptions
        tokens = sequence.tokens - hits if remote else min(sequence.tokens - hits, budget)
        if not self._memory.fits(known, hits + tokens):
            return None
        self._memory.share(sequence, known)
        if sequence.cached_tokens is None:
            sequence.cached_tokens = hits
            if sequence.request.reads_cache:
                self._counts.cache_queries += sequence.tokens
            self._counts.cache_hits += hits
        if remote:
            self._await_transfer(sequence, now_ps)
            return 0
        self._run(sequence, now_ps)
        self.fill(sequence, tokens, chunks)
        return tokens

    def _run(self, sequence: Sequence, now_ps: int) -> None:
        self.queue.remove(sequence)
        sequence.state = State.PREFILLING
        self._running.enter(sequence)
        if sequence.scheduled_ps is None:
            sequence.scheduled_ps = now_ps
            self._listener.scheduled(sequence, now_ps)

    def _await_transfer(self, sequence: Sequence, now_ps: int) -> None:
        missing = self._memory.blocks_for(sequence.tokens) - len(sequence.blocks)
        self._memory.lengthen(sequence, missing)
        self.queue.remove(sequence)
        self.arriving.begin(sequence, now_ps)
