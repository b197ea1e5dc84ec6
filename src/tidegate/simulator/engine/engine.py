"""The scheduler of a continuous-batching engine, one step after the other.

It follows vLLM's V1 scheduler: running sequences first, one token each; then the rest of a prompt
that was begun; then the queue, as far as the token budget, the number of sequences and the blocks
go. Out of blocks, the last comer gives up all of its own and is computed again later. What a step
costs depends on sums alone, and a decoding sequence has nothing of its own that changes, so a step
costs the same whether one or ten thousand sequences run; steps without an event are taken at once.
"""

from collections.abc import Iterator

from tidegate.simulator.engine.admission import Admission, Chunks, Flight
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.counts import Counts
from tidegate.simulator.engine.decoding import Decoding
from tidegate.simulator.engine.growth import Growth
from tidegate.simulator.engine.listener import Listener, Steps
from tidegate.simulator.engine.memory import Memory
from tidegate.simulator.engine.running import Running
from tidegate.simulator.engine.sequence import Request, Sequence, State
from tidegate.simulator.engine.settings import EngineSettings, Policy


class Engine:
    """One engine. Its methods report what happens at which time; `advance` moves it to that time.

    Attributes:
        step: how many steps have ended.
        now_ps: its time.
        unfinished: how many sequences it has, running and waiting.

    Args:
        settings: how much it holds.
        cost: how long its steps take.
        listener: receives what happens.
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
        self.step = 0
        self.now_ps = 0
        self.unfinished = 0
        self._listener = listener
        self._seed = seed
        self._bulk = bulk
        self._serial = 0
        self._decoding = Decoding(cost, settings.block_size)
        self._memory = Memory(settings, listener, self._decoding)
        self.pool = self._memory.pool
        self._running = Running(settings)
        self._admission = Admission(settings, self._memory, self._running, self.counts, listener)
        self._queue = self._admission.queue
        self._arriving = self._admission.arriving
        self._growth = Growth(self._memory, self._decoding, self._running, self._preempt)
        self._flight: Flight | None = None
        self._frozen_ps: int | None = None

    # What is asked of it

    @property
    def running(self) -> int:
        """Return how many sequences run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Return how many sequences wait, also for keys and values from elsewhere."""
        return len(self._queue) + len(self._arriving)

    @property
    def kv_usage(self) -> float:
        """Return the share of the blocks that are held."""
        return self.pool.held / self.pool.total

    @property
    def next_ps(self) -> int | None:
        """Return when something happens next by itself; None when nothing will."""
        if self._frozen_ps is not None:
            return None
        if self._flight is not None:
            return self._flight.end_ps
        if not self._running and self._admission.is_held:
            return None
        if self._queue or self._running:
            return self.now_ps
        return self._arriving.next_ps

    def add(self, request: Request, at_ps: int) -> Sequence:
        """Take in a request at a time up to which the engine was advanced."""
        assert at_ps >= self.now_ps, "a request from the past"
        settings = self.settings
        assert len(request.prompt) + request.output_tokens <= settings.max_model_len, request.key
        if self._flight is None:
            self.now_ps = at_ps
        self._serial += 1
        self.unfinished += 1
        sequence = Sequence(request, self._serial, at_ps, self._seed)
        self._queue.push(sequence)
        if settings.policy is Policy.PRIORITY:
            self._admission.is_blocked = False
        return sequence

    def abort(self, sequence: Sequence) -> bool:
        """End a sequence at once, wherever it is; False if it has ended already."""
        if sequence.state is State.ENDED:
            return False
        self.counts.aborted += 1
        self.unfinished -= 1
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
        while self._frozen_ps is None:
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

        None when nothing will happen at all. It may be too early, never too late: a caller with no
        need of each single token looks again then.
        """
        flight = self._flight
        if flight is None or flight.chunks or not self._is_steady or self._frozen_ps is not None:
            return self.next_ps
        # Each sequence takes a block at most every `block_size` steps: so long none is preempted.
        decoding = self._decoding
        safe = self.pool.free // decoding.count * self.settings.block_size
        steps = min(decoding.finishing.next - self.step - 1, safe)
        until = flight.end_ps + (decoding.time_of(steps, self.step + 1) if steps > 0 else 0)
        arrival = self._arriving.next_ps
        return until if arrival is None else min(until, arrival)

    # Rest, and what is remembered

    def hold(self, at_ps: int, *, freezes: bool = False) -> None:
        """Let nobody out of the queue until `resume`; with `freezes`, nothing at all goes on."""
        self._admission.is_held = True
        if freezes and self._frozen_ps is None:
            self._frozen_ps = at_ps

    def resume(self, at_ps: int) -> None:
        """Go on. A step that was frozen takes as much longer as it stood still."""
        frozen, self._frozen_ps = self._frozen_ps, None
        self._admission.is_held = False
        if self._flight is None:
            self.now_ps = max(self.now_ps, at_ps)
        elif frozen is not None:
            self._flight.end_ps += at_ps - frozen

    def preempt_all(self) -> None:
        """Send running sequences back to the queue, in the order in which they came."""
        for sequence in reversed(tuple(self._running)):
            self._preempt(sequence)

    def reset_cache(self) -> bool:
        """Forget every block that can be found; False, and nothing, while any is held."""
        if not self.pool.forget():
            return False
        self._listener.cache_cleared()
        return True

    def loras(self) -> tuple[list[str], list[str]]:
        """Return the adapters of who runs, and of who waits."""
        waiting = dict.fromkeys(item.request.lora for item in self._queue)
        return self._running.loras(), [name for name in waiting if name is not None]

    def sequences(self) -> Iterator[Sequence]:
        """Yield the running sequences in the order in which they began."""
        return iter(self._running)

    # One step

    def _begin(self, until_ps: int) -> bool:
        """Begin the next step; False where there is nothing to do before `until_ps` has passed."""
        if not self._running and self._admission.is_held:
            return False
        if not self._running and not self._queue and not self._await_arrival(until_ps):
            return False
        self._admission.take_in_arrived(self.now_ps)
        preempted = self._growth.into(self.step + 1)
        decoding = self._decoding
        budget = self.settings.max_num_batched_tokens - decoding.count
        chunks: Chunks = []
        if self._admission.partial is not None:
            preempted = self._continue(self._admission.partial, budget, chunks) or preempted
        if not preempted:
            left = budget - sum(tokens for _, tokens in chunks)
            self._admission.admit(left, chunks, self.now_ps)
        if not decoding.count and not chunks:
            # Nothing can run until blocks arrive from elsewhere, or somebody gives up what came.
            goes_on = self._await_arrival(until_ps) or self._admission.reclaim(self.now_ps)
            return goes_on and self._begin(until_ps)
        prefilled = sum(tokens for _, tokens in chunks)
        took = self.cost.step_ps(
            prefill_tokens=prefilled,
            decode_seqs=decoding.count,
            context_tokens=decoding.context(self.step + 1),
        )
        self._flight = Flight(took, self.now_ps + took, decoding.count, chunks)
        return True

    def _await_arrival(self, until_ps: int) -> bool:
        """Let time pass until blocks arrive; False where none do before `until_ps` has passed."""
        arrival = self._arriving.next_ps
        if arrival is None or arrival > until_ps:
            return False
        self.now_ps = max(self.now_ps, arrival)
        return True

    def _complete(self, flight: Flight) -> None:
        self._flight = None
        self.step += 1
        self.now_ps = flight.end_ps
        counts = self.counts
        counts.steps += 1
        counts.generated_tokens += self._decoding.count
        prefilled = 0
        for sequence, tokens in flight.chunks:
            prefilled += tokens
            if sequence.state is State.PREFILLING:
                self._advance_prefill(sequence, tokens)
        self._finish_due()
        self._decoding.pass_over(self.step)
        self._listener.stepped(Steps(1, flight.took_ps, flight.took_ps, flight.decoding, prefilled))

    def _advance_prefill(self, sequence: Sequence, tokens: int) -> None:
        sequence.computed += tokens
        self.counts.prompt_tokens += tokens
        if sequence.computed < sequence.tokens:
            return
        if self._admission.partial is sequence:
            self._admission.partial = None
        self._decoding.start(sequence, self.step)
        self.counts.generated_tokens += 1
        if sequence.first_token_ps is None:
            sequence.first_token_ps = self.now_ps
            self._listener.first_token(sequence, self.now_ps)

    def _finish_due(self) -> None:
        for sequence in self._decoding.finishing.take(self.step):
            if (
                sequence.state is State.DECODING
                and self.step - sequence.base == sequence.request.output_tokens
            ):
                self._leave(sequence)
                sequence.generated_before = sequence.request.output_tokens
                sequence.state = State.ENDED
                self.counts.finished += 1
                self.unfinished -= 1
                self._listener.finished(sequence, self.now_ps)

    # Many steps

    @property
    def _is_steady(self) -> bool:
        """Return whether the next step only decodes, unless it has an event of its own."""
        if not self._decoding.count or self._admission.partial is not None:
            return False
        admission = self._admission
        return not self._queue or admission.is_blocked or admission.is_held or self._running.is_full

    def _skip(self, until_ps: int) -> None:
        """Take all steps that end in time, before the next in which a sequence ends."""
        decoding, step = self._decoding, self.step
        arrival = self._arriving.next_ps
        if arrival is not None:
            until_ps = min(until_ps, arrival - 1)
        quiet = decoding.finishing.next - step - 1
        steps = self._growth.through(step, decoding.fitting(quiet, step, until_ps - self.now_ps))
        if steps < 1:
            return
        first = decoding.time_of(1, step)
        last = first + self.cost.context_token_ps * decoding.count * (steps - 1)
        self.now_ps += decoding.time_of(steps, step)
        self.step = step + steps
        self.counts.steps += steps
        self.counts.generated_tokens += decoding.count * steps
        self._listener.stepped(Steps(steps, first, last, decoding.count, prefilled=0))

    # Blocks

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
        self._running.leave(sequence)
        if sequence.state is State.DECODING:
            self._decoding.leave(sequence)
            self._memory.settle(sequence)
            # The token that came last was never computed.
            self._memory.store(sequence, sequence.tokens + self.step - sequence.started)
        elif sequence is self._admission.partial:
            self._admission.partial = None
        self._release(sequence)

    def _release(self, sequence: Sequence) -> None:
        self._memory.release(sequence)
        self._admission.is_blocked = False

    # Prompts

    def _continue(self, sequence: Sequence, budget: int, chunks: Chunks) -> bool:
        """Compute more of a prompt; return whether a sequence was preempted for it."""
        tokens = min(sequence.tokens - sequence.computed, budget)
        needed = self._memory.blocks_for(sequence.computed + tokens) - len(sequence.blocks)
        preempted = self._growth.make_room(needed, sequence)
        if sequence.state is State.PREFILLING:
            self._admission.fill(sequence, tokens, chunks)
        return preempted
