"""The prefix cache hits exactly what a brute-force count says it should, also under eviction."""

from array import array
from collections import OrderedDict

from hypothesis import example, given, settings, strategies as st

from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.engine import Engine
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.sequence import Request
from tidegate.simulator.engine.settings import EngineSettings

COST = Cost(fixed_ps=1_000_000, prefill_token_ps=0, decode_seq_ps=0, context_token_ps=0)
BLOCK = 8


class PlainCache:
    """Blocks by their whole prefix, as tuples; one request at a time, so nothing is shared."""

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        # What is on each block that nobody holds, in the order in which they are taken again.
        self.free: OrderedDict[int, tuple[int, ...] | None] = OrderedDict(
            (number, None) for number in range(blocks)
        )
        self.stored_at: dict[int, int] = {}
        self.time = 0
        self.fresh = 0

    def serve(self, tokens: list[int], output: list[int]) -> int:
        """Live one request through; return how many tokens were found."""
        found: list[int] = []
        for end in range(BLOCK, (len(tokens) - 1) // BLOCK * BLOCK + 1, BLOCK):
            prefix = tuple(tokens[:end])
            standing = [n for n, known in self.free.items() if known == prefix]
            if not standing:
                break
            found.append(min(standing, key=self.stored_at.__getitem__))
        for block in found:
            del self.free[block]
        held = list(found)
        whole = tokens + output[:-1]  # The last token is never computed.
        while len(held) * BLOCK < len(whole):
            held.append(self.take())
        contents: list[tuple[int, ...] | None] = []
        for place, block in enumerate(held):
            end = (place + 1) * BLOCK
            contents.append(tuple(whole[:end]) if end <= len(whole) else None)
            if place >= len(found):
                self.time += 1
                self.stored_at[block] = self.time
        for block, content in reversed(list(zip(held, contents, strict=True))):
            self.free[block] = content
        return len(found) * BLOCK

    def take(self) -> int:
        if self.fresh < self.blocks:
            # Blocks that were never used go before those that were.
            block = next(n for n in range(self.fresh, self.blocks) if n in self.free)
            self.fresh = block + 1
            del self.free[block]
            return block
        return self.free.popitem(last=False)[0]


@settings(max_examples=150, deadline=None)
@example(blocks=8, requests=[(2, 36, 4, 0), (2, 38, 3, 1)])
@given(
    blocks=st.integers(8, 20),
    requests=st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 40), st.integers(1, 20), st.integers(0, 2)),
        min_size=1,
        max_size=25,
    ),
)
def test_hits_are_those_of_a_plain_cache(
    blocks: int, requests: list[tuple[int, int, int, int]]
) -> None:
    size = EngineSettings(
        kv_blocks=blocks,
        block_size=BLOCK,
        max_num_seqs=4,
        max_num_batched_tokens=64,
        max_model_len=64,
    )
    engine, plain = Engine(size, COST, Listener()), PlainCache(blocks)
    hits = queries = 0
    for family, shared, own, branch in requests:
        tokens = [family] * shared + [10 + branch] * own
        request = Request(key=f"{family}{branch}", prompt=array("I", tokens), output_tokens=4)
        sequence = engine.add(request, engine.now_ps)
        output = array("I")
        output.frombytes(sequence.outputs.ids(0, 4))
        engine.advance(engine.now_ps + 10**12)
        assert engine.next_ps is None
        expected = plain.serve(tokens, list(output))
        assert sequence.cached_tokens == expected
        hits += expected
        queries += len(tokens)
    assert (engine.counts.cache_hits, engine.counts.cache_queries) == (hits, queries)
    assert engine.pool.held == 0
