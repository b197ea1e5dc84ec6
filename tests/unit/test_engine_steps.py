"""The engine does what a plain loop over everything does, in each step, for any requests."""

from array import array
from dataclasses import dataclass, replace

from hypothesis import given, settings, strategies as st

from testkit.fleet.engine_log import ODD_COST, Log, Recorder
from tidegate.simulator.engine.engine import Engine
from tidegate.simulator.engine.sequence import Request, Sequence, State
from tidegate.simulator.engine.settings import EngineSettings, Policy


@dataclass(eq=False)
class Plain:
    """A sequence of the plain engine: its tokens one by one."""

    request: Request
    order: int
    tokens: list[int]
    computed: int = 0
    blocks: int = 0
    generated: int = 0
    is_decoding: bool = False
    was_scheduled: bool = False
    was_first: bool = False


class PlainEngine:
    """The same rules, as loops over every sequence in every step. Blocks are only counted:
    there is no prefix cache in it."""

    def __init__(self, size: EngineSettings) -> None:
        self.size = size
        self.free = size.kv_blocks
        self.now = 0
        self.running: list[Plain] = []
        self.waiting: list[Plain] = []
        self.end: int | None = None
        self.chunks: list[tuple[Plain, int]] = []
        self.log: Log = []
        self.serial = 0

    def add(self, request: Request, at_ps: int) -> Plain:
        if self.end is None:
            self.now = at_ps
        self.serial += 1
        plain = Plain(request, self.serial, list(request.prompt))
        self.waiting.append(plain)
        return plain

    def abort(self, plain: Plain) -> None:
        if plain in self.waiting:
            self.waiting.remove(plain)
        elif plain in self.running:
            self.running.remove(plain)
        self.free += plain.blocks
        plain.blocks = 0
        self.chunks = [chunk for chunk in self.chunks if chunk[0] is not plain]

    def advance(self, until: int) -> None:
        while True:
            if self.end is None and not self.begin():
                return
            assert self.end is not None
            if self.end > until:
                return
            self.complete()

    def order_of_waiting(self) -> None:
        if self.size.policy is Policy.PRIORITY:
            self.waiting.sort(key=lambda plain: (plain.request.priority, plain.order))

    def begin(self) -> bool:
        if not self.running and not self.waiting:
            return False
        budget = self.size.max_num_batched_tokens
        self.chunks = []
        preempted = False
        decoding = [p for p in self.running if p.is_decoding]
        for plain in [*decoding, *[p for p in self.running if p not in decoding]]:
            if plain not in self.running:
                continue
            tokens = min(len(plain.tokens) - plain.computed, budget)
            if self.hold(plain, plain.computed + tokens):
                self.chunks.append((plain, tokens))
                budget -= tokens
            else:
                preempted = True
            preempted = preempted or self.lost
            # What was to be computed of a victim is free for others.
            budget += sum(n for victim, n in self.chunks if victim not in self.running)
            self.chunks = [chunk for chunk in self.chunks if chunk[0] in self.running]
        self.chunks = [chunk for chunk in self.chunks if chunk[0] in self.running]
        self.admit(budget, preempted=preempted)
        decodes = [p for p, _ in self.chunks if p in decoding]
        context = sum(len(p.tokens) for p in decodes)
        prefilled = sum(tokens for p, tokens in self.chunks if p not in decoding)
        self.end = self.now + ODD_COST.step_ps(
            prefill_tokens=prefilled, decode_seqs=len(decodes), context_tokens=context
        )
        return True

    def admit(self, budget: int, *, preempted: bool) -> None:
        self.order_of_waiting()
        while (
            not preempted
            and budget > 0
            and self.waiting
            and len(self.running) < self.size.max_num_seqs
        ):
            plain = self.waiting[0]
            tokens = min(len(plain.tokens) - plain.computed, budget)
            if -(-tokens // self.size.block_size) > self.free:
                break
            self.waiting.pop(0)
            self.running.append(plain)
            assert self.hold(plain, tokens)
            self.chunks.append((plain, tokens))
            budget -= tokens
            if not plain.was_scheduled:
                plain.was_scheduled = True
                self.log.append(("scheduled", plain.request.key, self.now, 0))

    def hold(self, plain: Plain, tokens: int) -> bool:
        self.lost = False
        needed = -(-tokens // self.size.block_size) - plain.blocks
        while needed > self.free:
            victim = self.running[-1]
            if self.size.policy is Policy.PRIORITY:
                victim = max(self.running, key=lambda p: (p.request.priority, p.order))
            self.running.remove(victim)
            self.free += victim.blocks
            victim.blocks = victim.computed = 0
            victim.is_decoding = False
            self.waiting.insert(0, victim)
            self.log.append(("preempted", victim.request.key, self.now))
            self.lost = True
            if victim is plain:
                return False
        self.free -= max(needed, 0)
        plain.blocks += max(needed, 0)
        return True

    def complete(self) -> None:
        assert self.end is not None
        self.now, self.end = self.end, None
        first_done, finished = [], []
        for plain, tokens in self.chunks:
            plain.computed += tokens
            if plain.computed == len(plain.tokens):
                plain.tokens.append(0)
                plain.generated += 1
                plain.is_decoding = True
                if not plain.was_first:
                    plain.was_first = True
                    first_done.append(plain)
                if plain.generated == plain.request.output_tokens:
                    finished.append(plain)
        self.log += [("first", plain.request.key, self.now) for plain in first_done]
        for plain in finished:
            self.running.remove(plain)
            self.free += plain.blocks
            plain.blocks = 0
        keys = sorted(plain.order for plain in finished)
        by_order = {plain.order: plain for plain in finished}
        self.log += [("finished", by_order[order].request.key, self.now) for order in keys]


SIZES = st.builds(
    EngineSettings,
    kv_blocks=st.integers(8, 24),
    block_size=st.just(8),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.integers(6, 40),
    max_model_len=st.just(64),
    policy=st.sampled_from(Policy),
    prefix_caching=st.just(False),
)
DEED = st.tuples(
    st.integers(0, 40_000_000),  # Picoseconds until then.
    st.integers(1, 40),  # Tokens of the prompt.
    st.integers(1, 24),  # Tokens that come out.
    st.integers(0, 2),  # Priority.
    st.booleans(),  # Whether the one before it is aborted.
)


def _sorted_by_time(log: Log) -> list[tuple[object, ...]]:
    """Order simultaneous events by name: the two engines may report them in any order."""
    return sorted(log, key=lambda entry: (str(entry[2]).zfill(20), str(entry[0]), str(entry[1])))


@settings(max_examples=300, deadline=None)
@given(size=SIZES, deeds=st.lists(DEED, min_size=1, max_size=14))
def test_it_does_what_a_plain_loop_does(
    size: EngineSettings, deeds: list[tuple[int, int, int, int, bool]]
) -> None:
    recorder = Recorder()
    engine, plain = Engine(size, ODD_COST, recorder), PlainEngine(size)
    now = 0
    last: tuple[Sequence, Plain] | None = None
    for number, (wait, prompt, output, priority, aborts) in enumerate(deeds):
        now += wait
        engine.advance(now)
        plain.advance(now)
        if aborts and last is not None:
            if last[0].state is not State.ENDED:
                plain.abort(last[1])
            engine.abort(last[0])
        request = Request(
            key=str(number),
            prompt=array("I", range(prompt)),
            output_tokens=output,
            priority=priority,
        )
        last = engine.add(request, now), plain.add(request, now)
    engine.advance(now + 10**12)
    plain.advance(now + 10**12)
    assert _sorted_by_time(recorder.log) == _sorted_by_time(plain.log)
    assert engine.next_ps is None
    assert engine.pool.held == 0


@settings(max_examples=200, deadline=None)
@given(size=SIZES, deeds=st.lists(DEED, min_size=1, max_size=14), cached=st.booleans())
def test_steps_at_once_are_the_steps_one_by_one(
    size: EngineSettings, deeds: list[tuple[int, int, int, int, bool]], *, cached: bool
) -> None:
    size = replace(size, prefix_caching=cached)
    logs, counts = [], []
    for bulk in (True, False):
        recorder = Recorder()
        engine = Engine(size, ODD_COST, recorder, bulk=bulk)
        now = 0
        last: Sequence | None = None
        for number, (wait, prompt, output, priority, aborts) in enumerate(deeds):
            now += wait
            engine.advance(now)
            if aborts and last is not None:
                engine.abort(last)
            request = Request(
                key=str(number),
                prompt=array("I", range(prompt)),
                output_tokens=output,
                priority=priority,
            )
            last = engine.add(request, now)
        engine.advance(now + 10**12)
        logs.append(recorder.log)
        counts.append((engine.counts, engine.step, engine.now_ps))
    assert logs[0] == logs[1]
    assert counts[0] == counts[1]
