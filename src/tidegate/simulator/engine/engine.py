"""The scheduler of a continuous-batching engine, one step after the other.

It follows vLLM's V1 scheduler: running sequences first, one token each; then the rest of a prompt
that was begun; then the queue, as far as the token budget, the number of sequences and the blocks
go. Out of blocks, the last comer gives up all of its own and is computed anew later. What a step
costs depends on sums alone, and a decoding sequence has nothing of its own that changes, so a step
costs the same whether one or ten thousand sequences run; steps without an event are taken at once.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from tidegate.simulator.engine.blocks import BlockPool
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.queue import Queue
from tidegate.simulator.engine.sequence import Request, Sequence, State
from tidegate.simulator.engine.settings import EngineSettings, Policy


@dataclass(slots=True)
class Counts:
    """What an engine has done since it was made."""

    steps: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    cache_queries: int = 0
    cache_hits: int = 0
    preemptions: int = 0
    finished: int = 0
    aborted: int = 0


@dataclass(slots=True, eq=False)
class _Flight:
    """A step that has begun: when it ends, and whose prompts it computes."""

    took_ps: int
    end_ps: int
    decoding: int
    chunks: list[tuple[Sequence, int]]


class Engine:
    """One engine. Tell it what happens at which time; `advance` brings it there.

    Args:
        settings: how much it holds.
        cost: how long its steps take.
        listener: who hears what happens.
        seed: from which every token is drawn, with the request's key and the token's index.
        bulk: whether steps without an event are taken at once; the outcome is the same.
    """

    def __init__(
        self,
        settings: EngineSettings,
        cost: Cost,
        listener: Listener,
        *,
        seed: int = 0,
        bulk: bool = True,
    ) -> None:
        self.settings = settings
        self.cost = cost
        self.counts = Counts()
        self.pool = BlockPool(settings.kv_blocks)
        self.step = 0
        self.now_ps = 0
        self._listener = listener
        self._seed = seed
        self._bulk = bulk
        self._serial = 0
        self._turns = 0
        self._queue = Queue(settings.policy)
        self._running: dict[int, Sequence] = {}
        self._partial: Sequence | None = None
        self._arriving: list[tuple[int, int, Sequence]] = []
        self._decoding = 0
        # The context that decoding sequences attend to in step s is `_offset + _decoding * s`.
        self._offset = 0
        self._growing: dict[int, list[Sequence]] = {}
        self._finishing: dict[int, list[Sequence]] = {}
        # The steps that have an entry there, as heaps.
        self._growths: list[int] = []
        self._finishes: list[int] = []
        self._flight: _Flight | None = None
        self._is_blocked = False
        self._loras: dict[str, int] = {}

    # What is asked of it

    @property
    def running(self) -> int:
        """Return how many sequences run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Return how many sequences wait, also for keys and values from elsewhere."""
        return len(self._queue) + sum(
            sequence.state is State.ARRIVING for _, _, sequence in self._arriving
        )

    @property
    def kv_usage(self) -> float:
        """Return the share of the blocks that are held."""
        return self.pool.held / self.pool.total

    @property
    def next_ps(self) -> int | None:
        """Return when something happens next by itself; None when nothing will."""
        if self._flight is not None:
            return self._flight.end_ps
        if self._queue or self._running:
            return self.now_ps
        return self._arriving[0][0] if self._arriving else None

    def add(self, request: Request, at_ps: int) -> Sequence:
        """Take in a request at a time up to which the engine was advanced."""
        assert at_ps >= self.now_ps, "a request from the past"
        settings = self.settings
        assert len(request.prompt) + request.output_tokens <= settings.max_model_len, request.key
        if self._flight is None:
            self.now_ps = at_ps
        self._serial += 1
        sequence = Sequence(request, self._serial, at_ps, self._seed)
        self._queue.push(sequence)
        if settings.policy is Policy.PRIORITY:
            self._is_blocked = False
        return sequence

    def abort(self, sequence: Sequence) -> bool:
        """End a sequence at once, wherever it is; False if it has ended already."""
        if sequence.state is State.ENDED:
            return False
        self.counts.aborted += 1
        match sequence.state:
            case State.WAITING:
                self._queue.remove(sequence)
                self._release(sequence)
            case State.ARRIVING:
                self._release(sequence)
            case _:
                self._leave(sequence)
        sequence.state = State.ENDED
        return True

    def advance(self, until_ps: int) -> int | None:
        """Live until this time; return when something happens next, or None."""
        while True:
            if self._flight is None and not self._begin(until_ps):
                break
            assert self._flight is not None
            if self._flight.end_ps > until_ps:
                break
            self._complete(self._flight)
            if self._bulk and self._is_steady:
                self._skip(until_ps)
        return self.next_ps

    @property
    def quiet_until_ps(self) -> int | None:
        """Return until when no first token and no end can come, if nothing is asked meanwhile.

        None when nothing will happen at all. It may be too early, never too late: whoever has no
        need of each single token looks again then.
        """
        flight = self._flight
        if flight is None or flight.chunks or not self._is_steady:
            return self.next_ps
        # Each sequence takes a block at most every `block_size` steps: so long none is preempted.
        safe = self.pool.free // self._decoding * self.settings.block_size
        steps = min(self._finishes[0] - self.step - 1, safe)
        until = flight.end_ps + (self._time_of(steps, after=1) if steps > 0 else 0)
        return min(until, self._arriving[0][0]) if self._arriving else until

    def sequences(self) -> Iterator[Sequence]:
        """Yield the running sequences in the order in which they began."""
        return iter(self._running.values())

    # One step

    def _begin(self, until_ps: int) -> bool:
        """Begin the next step; False where there is nothing to do before `until_ps` has passed."""
        if not self._running and not self._queue:
            if not self._arriving or self._arriving[0][0] > until_ps:
                return False
            self.now_ps = max(self.now_ps, self._arriving[0][0])
        self._take_in_arrived()
        preempted = self._grow()
        budget = self.settings.max_num_batched_tokens - self._decoding
        chunks: list[tuple[Sequence, int]] = []
        if self._partial is not None:
            preempted = self._continue(self._partial, budget, chunks) or preempted
        if not preempted:
            self._admit(budget - sum(tokens for _, tokens in chunks), chunks)
        if not self._decoding and not chunks:
            return self._rest(until_ps)
        prefilled = sum(tokens for _, tokens in chunks)
        took = self.cost.step_ps(
            prefill_tokens=prefilled,
            decode_seqs=self._decoding,
            context_tokens=self._offset + self._decoding * (self.step + 1),
        )
        self._flight = _Flight(took, self.now_ps + took, self._decoding, chunks)
        return True

    def _rest(self, until_ps: int) -> bool:
        """Nothing can run until blocks arrive from elsewhere."""
        assert self._arriving, "an engine with free blocks left its queue alone"
        ready = self._arriving[0][0]
        if ready > until_ps:
            return False
        self.now_ps = max(self.now_ps, ready)
        return self._begin(until_ps)

    def _complete(self, flight: _Flight) -> None:
        self._flight = None
        self.step += 1
        self.now_ps = flight.end_ps
        counts = self.counts
        counts.steps += 1
        counts.generated_tokens += self._decoding
        prefilled = 0
        for sequence, tokens in flight.chunks:
            prefilled += tokens
            if sequence.state is State.PREFILLING:
                self._advance_prefill(sequence, tokens)
        self._finish_due()
        _drop_passed(self._growths, self.step)
        _drop_passed(self._finishes, self.step)
        self._listener.stepped(
            steps=1,
            first_ps=flight.took_ps,
            last_ps=flight.took_ps,
            decoding=flight.decoding,
            prefilled=prefilled,
            ended_ps=self.now_ps,
        )

    def _advance_prefill(self, sequence: Sequence, tokens: int) -> None:
        sequence.computed += tokens
        self.counts.prompt_tokens += tokens
        if sequence.computed < sequence.tokens:
            return
        if self._partial is sequence:
            self._partial = None
        self._start_decoding(sequence)
        self.counts.generated_tokens += 1
        if sequence.first_token_ps is None:
            sequence.first_token_ps = self.now_ps
            self._listener.first_token(sequence, self.now_ps)

    def _start_decoding(self, sequence: Sequence) -> None:
        """Its first token came out of the step that has just ended; each further step gives one."""
        start, tokens = self.step, sequence.tokens
        sequence.started = start
        sequence.base = start - sequence.generated_before - 1
        sequence.state = State.DECODING
        self._decoding += 1
        self._offset += tokens - start
        # In step s it computes the token at place tokens + (s - start) - 1.
        _note(
            self._growing, self._growths, start + 1 + -tokens % self.settings.block_size, sequence
        )
        _note(
            self._finishing,
            self._finishes,
            sequence.base + sequence.request.output_tokens,
            sequence,
        )

    def _finish_due(self) -> None:
        for sequence in self._finishing.pop(self.step, ()):
            if (
                sequence.state is State.DECODING
                and self.step - sequence.base == sequence.request.output_tokens
            ):
                self._leave(sequence)
                sequence.generated_before = sequence.request.output_tokens
                sequence.state = State.ENDED
                self.counts.finished += 1
                self._listener.finished(sequence, self.now_ps)

    # Many steps

    @property
    def _is_steady(self) -> bool:
        """Say whether the next step only decodes, unless it has an event of its own."""
        if not self._decoding or self._partial is not None:
            return False
        return not self._queue or self._is_blocked or self._is_full

    @property
    def _is_full(self) -> bool:
        return len(self._running) >= self.settings.max_num_seqs

    def _skip(self, until_ps: int) -> None:
        """Take all steps up to the next one with an event that end in time."""
        # A sequence that decodes has an entry in both.
        steps = min(self._growths[0], self._finishes[0]) - self.step - 1
        if self._arriving:
            until_ps = min(until_ps, self._arriving[0][0] - 1)
        if steps < 1 or self.now_ps + self._time_of(steps) > until_ps:
            steps = self._fitting(steps, until_ps)
        if steps < 1:
            return
        decoding = self._decoding
        first = self._time_of(1)
        self.now_ps += self._time_of(steps)
        last = first + self.cost.context_token_ps * decoding * (steps - 1)
        self.step += steps
        self.counts.steps += steps
        self.counts.generated_tokens += decoding * steps
        self._listener.stepped(
            steps=steps,
            first_ps=first,
            last_ps=last,
            decoding=decoding,
            prefilled=0,
            ended_ps=self.now_ps,
        )

    def _time_of(self, steps: int, *, after: int = 0) -> int:
        """Return how long so many steps take, `after` so many others that only decode.

        It is an arithmetic series, exact in integers.
        """
        cost, decoding, step = self.cost, self._decoding, self.step + after
        context = steps * (self._offset + decoding * step) + decoding * steps * (steps + 1) // 2
        each = cost.fixed_ps + cost.decode_seq_ps * decoding
        return steps * each + cost.context_token_ps * context

    def _fitting(self, steps: int, until_ps: int) -> int:
        """Return how many of the next steps end in time, `steps` at most."""
        low, high = 0, max(steps, 0)
        while low < high:
            middle = (low + high + 1) // 2
            if self.now_ps + self._time_of(middle) <= until_ps:
                low = middle
            else:
                high = middle - 1
        return low

    # Blocks

    def _grow(self) -> bool:
        """Give each sequence whose last block is full a new one; say whether one was preempted."""
        due = self._growing.pop(self.step + 1, None)
        if due is None:
            return False
        preempted = False
        size = self.settings.block_size
        if len(due) > 1:
            due.sort(key=_turn)
        for sequence in due:
            blocks = len(sequence.blocks)
            if sequence.state is not State.DECODING or not self._is_due(sequence):
                continue
            self._store(sequence, blocks)
            if not self.pool.free:
                preempted = True
                self._make_room(1, sequence)
            if sequence.state is State.DECODING:
                self._lengthen(sequence, 1)
                _note(self._growing, self._growths, self.step + 1 + size, sequence)
        return preempted

    def _is_due(self, sequence: Sequence) -> bool:
        place = sequence.tokens + self.step - sequence.started
        return place == len(sequence.blocks) * self.settings.block_size

    def _make_room(self, blocks: int, for_whom: Sequence) -> bool:
        """Preempt until so many blocks are free, or it was its own turn; say whether one was."""
        preempted = False
        while self.pool.free < blocks:
            victim = self._victim()
            preempted = True
            self._preempt(victim)
            if victim is for_whom:
                break
        return preempted

    def _victim(self) -> Sequence:
        if self.settings.policy is Policy.FCFS:
            return next(reversed(self._running.values()))
        return max(
            self._running.values(), key=lambda sequence: (sequence.request.priority, sequence.order)
        )

    def _preempt(self, sequence: Sequence) -> None:
        generated = sequence.generated(self.step)
        self._leave(sequence)
        sequence.generated_before = generated
        sequence.state = State.WAITING
        sequence.preemptions += 1
        self.counts.preemptions += 1
        self._queue.push_back(sequence)
        self._listener.preempted(sequence, self.now_ps)

    def _leave(self, sequence: Sequence) -> None:
        """Take a running sequence out of everything; its state is set by the caller."""
        del self._running[sequence.order]
        if sequence.state is State.DECODING:
            self._decoding -= 1
            self._offset -= sequence.tokens - sequence.started
            # The token that came last was never computed.
            computed = sequence.tokens + self.step - sequence.started
            self._store(sequence, computed // self.settings.block_size)
        elif sequence is self._partial:
            self._partial = None
        lora = sequence.request.lora
        if lora is not None:
            self._loras[lora] -= 1
            if not self._loras[lora]:
                del self._loras[lora]
        self._release(sequence)

    def _release(self, sequence: Sequence) -> None:
        self.pool.let_go(sequence.blocks)
        sequence.blocks = []
        sequence.computed = sequence.stored = 0
        self._is_blocked = False

    def _lengthen(self, sequence: Sequence, blocks: int) -> None:
        """Give a sequence more blocks; there are that many."""
        sequence.blocks += self.pool.take(blocks)
        if self.pool.removed:
            for known in self.pool.removed:
                self._listener.block_removed(known)
            self.pool.removed.clear()

    def _store(self, sequence: Sequence, blocks: int) -> None:
        """Let the first full blocks of a sequence be found."""
        first = sequence.stored
        if blocks <= first or not self.settings.prefix_caching:
            return
        hashes = sequence.hashes(blocks, self.settings.block_size)
        stored = self.pool.store(sequence.blocks, hashes, first)
        sequence.stored = blocks
        if stored:
            self._listener.blocks_stored(sequence, stored)

    # Prompts

    def _continue(
        self, sequence: Sequence, budget: int, chunks: list[tuple[Sequence, int]]
    ) -> bool:
        """Compute more of a prompt that was begun; say whether a sequence was preempted for it."""
        tokens = min(sequence.tokens - sequence.computed, budget)
        needed = self._blocks_for(sequence.computed + tokens) - len(sequence.blocks)
        preempted = self._make_room(needed, sequence)
        if sequence.state is State.PREFILLING:
            self._fill(sequence, tokens, chunks)
        return preempted

    def _fill(self, sequence: Sequence, tokens: int, chunks: list[tuple[Sequence, int]]) -> None:
        """Compute these tokens of a sequence in the step that begins; there is room for them."""
        end = sequence.computed + tokens
        missing = self._blocks_for(end) - len(sequence.blocks)
        if missing > 0:
            self._lengthen(sequence, missing)
        self._store(sequence, end // self.settings.block_size)
        self._partial = sequence if end < sequence.tokens else None
        chunks.append((sequence, tokens))

    def _blocks_for(self, tokens: int) -> int:
        return -(-tokens // self.settings.block_size)

    def _admit(self, budget: int, chunks: list[tuple[Sequence, int]]) -> None:
        """Let sequences out of the queue as far as there is room for them."""
        if self._is_blocked or self._partial is not None:
            return
        skipped: list[Sequence] = []
        while budget > 0 and self._queue and not self._is_full and self._partial is None:
            sequence = self._queue.first()
            if not self._has_lora_room(sequence):
                self._queue.remove(sequence)
                skipped.append(sequence)
                continue
            tokens = self._enter(sequence, budget, chunks)
            if tokens is None:
                self._is_blocked = True
                break
            budget -= tokens
        for sequence in reversed(skipped):
            self._queue.push_back(sequence)

    def _has_lora_room(self, sequence: Sequence) -> bool:
        lora = sequence.request.lora
        if lora is None or lora in self._loras:
            return True
        return len(self._loras) < self.settings.max_loras

    def _enter(
        self, sequence: Sequence, budget: int, chunks: list[tuple[Sequence, int]]
    ) -> int | None:
        """Start a sequence; return the tokens it takes of the budget, or None: no room for it."""
        if sequence.blocks:
            tokens = sequence.tokens - sequence.computed  # It came with its blocks.
            self._run(sequence)
            self._fill(sequence, min(tokens, budget), chunks)
            return min(tokens, budget)
        size = self.settings.block_size
        known = self._known(sequence)
        hits = len(known) * size
        remote = sequence.request.transfer_ps is not None and not sequence.preemptions
        tokens = sequence.tokens - hits if remote else min(sequence.tokens - hits, budget)
        needed = self._blocks_for(hits + tokens) - len(known)
        if needed + self.pool.idle_among(known) > self.pool.free:
            return None
        self.pool.share(known)
        sequence.blocks = list(known)
        sequence.stored = len(known)
        sequence.computed = hits
        if sequence.cached_tokens is None:
            sequence.cached_tokens = hits
            self.counts.cache_queries += sequence.tokens
            self.counts.cache_hits += hits
        if remote:
            self._await_transfer(sequence, needed)
            return 0
        self._run(sequence)
        self._fill(sequence, tokens, chunks)
        return tokens

    def _known(self, sequence: Sequence) -> list[int]:
        """Return the blocks of its beginning that are there; its last token is computed anyway."""
        if not self.settings.prefix_caching:
            return []
        size = self.settings.block_size
        return self.pool.find(sequence.hashes((sequence.tokens - 1) // size, size))

    def _run(self, sequence: Sequence) -> None:
        self._queue.remove(sequence)
        sequence.state = State.PREFILLING
        self._turns += 1
        sequence.turn = self._turns
        self._running[sequence.order] = sequence
        lora = sequence.request.lora
        if lora is not None:
            self._loras[lora] = self._loras.get(lora, 0) + 1
        if sequence.scheduled_ps is None:
            sequence.scheduled_ps = self.now_ps
            self._listener.scheduled(sequence, self.now_ps)

    # Keys and values from elsewhere

    def _await_transfer(self, sequence: Sequence, blocks: int) -> None:
        self._lengthen(sequence, blocks)
        self._queue.remove(sequence)
        sequence.state = State.ARRIVING
        delay = sequence.request.transfer_ps
        assert delay is not None, sequence.request.key
        heapq.heappush(self._arriving, (self.now_ps + delay, sequence.order, sequence))

    def _take_in_arrived(self) -> None:
        """Queue, first of all, the sequences whose blocks have come: one token is left to do."""
        while self._arriving and self._arriving[0][0] <= self.now_ps:
            _, _, sequence = heapq.heappop(self._arriving)
            if sequence.state is State.ARRIVING:
                sequence.computed = sequence.tokens - 1
                self._store(sequence, sequence.computed // self.settings.block_size)
                sequence.state = State.WAITING
                self._queue.push_back(sequence)
                self._is_blocked = False


def _note(
    calendar: dict[int, list[Sequence]], steps: list[int], step: int, sequence: Sequence
) -> None:
    found = calendar.get(step)
    if found is None:
        calendar[step] = [sequence]
        heapq.heappush(steps, step)
    else:
        found.append(sequence)


def _drop_passed(steps: list[int], step: int) -> None:
    while steps and steps[0] <= step:
        heapq.heappop(steps)


def _turn(sequence: Sequence) -> int:
    return sequence.turn
