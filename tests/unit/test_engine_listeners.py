"""An engine does the same with a listener, which needs each block hashed, as without one."""

from array import array
from dataclasses import replace

from hypothesis import example, given, settings, strategies as st
from typing_extensions import override

from testkit.fleet.engine_log import ODD_COST, Log, Recorder
from tidegate.simulator.engine.engine import Engine
from tidegate.simulator.engine.listener import Listener, Listeners
from tidegate.simulator.engine.sequence import Request, Sequence
from tidegate.simulator.engine.settings import EngineSettings, Policy

BLOCK = 8


class Blocks(Listener):
    """Records blocks, and checks that none is stored twice or removed before it was stored."""

    hears_blocks = True

    def __init__(self) -> None:
        self.known: set[int] = set()

    @override
    def blocks_stored(self, sequence: Sequence, indexes: list[int]) -> None:
        hashes = sequence.hashes(indexes[-1] + 1, BLOCK)
        stored = {hashes[index] for index in indexes}
        assert not stored & self.known
        self.known |= stored

    @override
    def block_removed(self, known: int) -> None:
        self.known.remove(known)


SIZES = st.builds(
    EngineSettings,
    kv_blocks=st.integers(8, 30),
    block_size=st.just(BLOCK),
    max_num_seqs=st.integers(1, 6),
    max_num_batched_tokens=st.sampled_from((6, 9, 24, 40)),
    max_model_len=st.just(64),
    policy=st.sampled_from(Policy),
)
# Few tokens and scripts of the same ones: prompts go on where answers of others stand.
DEED = st.tuples(
    st.sampled_from((0, 1, 3_000_000, 30_000_000, 200_000_000)),  # Picoseconds until then.
    st.integers(0, 1),  # The token of which prompt and answer consist.
    st.integers(1, 40),  # Tokens of the prompt.
    st.integers(1, 24),  # Tokens that come out.
    st.integers(0, 2),  # Priority.
    st.sampled_from((None, None, None, 2_000_000)),  # How long its blocks take to come.
    st.booleans(),  # Whether the one before it is aborted.
)


def life(
    size: EngineSettings,
    deeds: list[tuple[int, int, int, int, int, int | None, bool]],
    *,
    heard: bool,
    bulk: bool,
) -> tuple[Log, object]:
    recorder, blocks = Recorder(), Blocks()
    ears = Listeners((recorder, blocks)) if heard else recorder
    engine = Engine(size, ODD_COST, ears, bulk=bulk)
    now = 0
    last: Sequence | None = None
    for number, (wait, token, prompt, output, priority, transfer, aborts) in enumerate(deeds):
        now += wait
        engine.advance(now)
        if aborts and last is not None:
            engine.abort(last)
        request = Request(
            key=str(number),
            prompt=array("I", [token] * prompt),
            output_tokens=output,
            priority=priority,
            transfer_ps=transfer,
            script=array("I", [token] * output),
        )
        last = engine.add(request, now)
        usage = (engine.pool.held, engine.running, engine.waiting)
        recorder.log.append(("usage", now, engine.step, *usage))
    engine.advance(now + 10**12)
    assert engine.next_ps is None
    assert engine.pool.held == 0
    if heard:
        assert blocks.known == set(engine.pool._by_hash)
    return recorder.log, (engine.counts, engine.step, engine.now_ps, engine.pool.known)


# Blocks from another engine were queued behind a request that had too few of them, indefinitely.
STUCK = [
    (30_000_000, 1, 13, 19, 2, None, False),
    (30_000_000, 1, 36, 23, 1, 2_000_000, False),
    (1, 0, 35, 4, 2, None, False),
    (200_000_000, 1, 31, 3, 0, None, False),
    (0, 1, 19, 5, 2, 2_000_000, False),
    (3_000_000, 0, 34, 11, 2, None, False),
    (3_000_000, 0, 31, 17, 0, 2_000_000, True),
    (3_000_000, 1, 40, 3, 2, 2_000_000, False),
]
NARROW = EngineSettings(
    kv_blocks=9, block_size=BLOCK, max_num_seqs=2, max_num_batched_tokens=9, max_model_len=64
)


@settings(max_examples=300, deadline=None)
@example(size=NARROW, deeds=STUCK, cached=True)
@given(size=SIZES, deeds=st.lists(DEED, min_size=2, max_size=16), cached=st.booleans())
def test_an_engine_with_a_listener_does_the_same(
    size: EngineSettings,
    deeds: list[tuple[int, int, int, int, int, int | None, bool]],
    *,
    cached: bool,
) -> None:
    size = replace(size, prefix_caching=cached)
    lives = [
        life(size, deeds, heard=heard, bulk=bulk)
        for heard in (True, False)
        for bulk in (True, False)
    ]
    assert lives[1:] == lives[:1] * 3


def test_what_was_never_asked_for_is_never_hashed() -> None:
    size = EngineSettings(kv_blocks=64, block_size=BLOCK, max_model_len=256)
    engine = Engine(size, ODD_COST, Listener())
    prompts = [array("I", range(number * 100, number * 100 + 50)) for number in range(40)]
    for prompt in prompts:
        engine.add(Request(key="first", prompt=prompt, output_tokens=30), engine.now_ps)
        engine.advance(engine.now_ps + 10**12)
    assert engine.pool.known > 50, "the blocks that are there can be found"
    assert not engine.pool._by_hash
    assert len(engine.pool.runs) <= engine.pool.known
    again = engine.add(Request(key="again", prompt=prompts[-1], output_tokens=1), engine.now_ps)
    engine.advance(engine.now_ps + 10**12)
    assert again.cached_tokens == 48
    assert engine.reset_cache()
    assert (engine.pool.known, len(engine.pool.runs)) == (0, 0)
