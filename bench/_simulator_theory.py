"""The parts of the simulator's figures that need no socket: speed, theory, caches, sameness."""

import random
import time
from array import array
from collections.abc import Callable

from typing_extensions import override

from testkit.fleet import arrivals
from testkit.fleet.engines import Fleet, LoopEngine, Served, shared_prompts
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.engine import Engine
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.presets import preset
from tidegate.simulator.engine.sequence import Request, Sequence
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.testing.loop import run_virtual

ENGINES = 8
RUNNING = 64
LOAD = 0.8
FLEET_PRESET = "llama-70b-h100x8"
OUTPUT_TOKENS = 256


def fleet_speed(simulated_seconds: float, block_size: int = 16) -> dict[str, float]:
    """Run eight engines at 80% of 64 running sequences; return simulated over real seconds."""
    found: dict[str, float] = {}

    async def live() -> None:
        ready = preset(FLEET_PRESET)
        size = EngineSettings(
            kv_blocks=ready.kv_tokens // block_size, block_size=block_size, max_num_seqs=RUNNING
        )
        fleet = Fleet([LoopEngine(f"engine-{n}", size, ready.cost, seed=1) for n in range(ENGINES)])
        chance = random.Random(1)
        make = shared_prompts(
            chance, groups=50, shared_tokens=256, own_tokens=256, output_tokens=OUTPUT_TOKENS
        )
        # Little's law: this many arrivals a second keep the engines at their load.
        seconds_each = (
            OUTPUT_TOKENS
            * ready.cost.step_ps(
                prefill_tokens=60,
                decode_seqs=int(LOAD * RUNNING),
                context_tokens=int(LOAD * RUNNING) * 640,
            )
            / 1e12
        )
        rate = ENGINES * LOAD * RUNNING / seconds_each
        wall, cpu = time.perf_counter(), time.process_time()
        await fleet.run(arrivals.until(arrivals.poisson(rate, chance), simulated_seconds), make)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        await fleet.drained()
        served = fleet.served
        busy = sum(each.finished - each.scheduled for each in served)
        found.update(
            virtual_speedup=round(simulated_seconds / wall, 1),
            virtual_speedup_of_cpu=round(simulated_seconds / cpu, 1),
            virtual_requests=len(served),
            virtual_running_mean=round(busy / simulated_seconds / ENGINES, 1),
        )

    run_virtual(live())
    return found


def queue_against_theory(requests: int) -> float:
    """Return how far the mean wait before one server is from M/M/1's rho / (1 - rho) x S."""
    step, mean_tokens, load = 0.001, 200, 0.5
    chance = random.Random(7)

    def make(number: int) -> Request:
        # Geometric numbers of equal steps: the exponential service of the theory.
        tokens = 1 + int(chance.expovariate(1.0) * mean_tokens)
        return Request(key=str(number), prompt=array("I", [1]), output_tokens=min(tokens, 7_000))

    async def live() -> list[Served]:
        size = EngineSettings(
            kv_blocks=64,
            block_size=128,
            max_num_seqs=1,
            max_num_batched_tokens=128,
            max_model_len=8_000,
            prefix_caching=False,
        )
        law = Cost.of_seconds(fixed=step, prefill_token=0, decode_seq=0, context_token=0)
        fleet = Fleet([LoopEngine("only", size, law)])
        times = arrivals.poisson(load / (step * mean_tokens), chance)
        await fleet.run(arrivals.first(times, requests), make)
        await fleet.drained()
        return fleet.served

    served = run_virtual(live())
    service = sum(each.finished - each.scheduled for each in served) / len(served)
    rate = len(served) / (served[-1].finished - served[0].arrived)
    rho = rate * service
    waited = sum(each.queued for each in served) / len(served)
    return abs(waited / (rho / (1.0 - rho) * service) - 1.0)


class _Log(Listener):
    hears_blocks = True

    def __init__(self) -> None:
        self.events: list[tuple[str, str, int]] = []

    @override
    def scheduled(self, sequence: Sequence, at_ps: int) -> None:
        self.events.append(("scheduled", sequence.request.key, at_ps))

    @override
    def first_token(self, sequence: Sequence, at_ps: int) -> None:
        self.events.append(("first_token", sequence.request.key, at_ps))

    @override
    def finished(self, sequence: Sequence, at_ps: int) -> None:
        self.events.append(("finished", sequence.request.key, at_ps))

    @override
    def preempted(self, sequence: Sequence, at_ps: int) -> None:
        self.events.append(("preempted", sequence.request.key, at_ps))

    @override
    def blocks_stored(self, sequence: Sequence, indexes: list[int]) -> None:
        self.events.append(("stored", sequence.request.key, len(indexes)))

    @override
    def block_removed(self, known: int) -> None:
        self.events.append(("removed", "", known))


def _one_life(make: Callable[[int], Request], size: EngineSettings, *, bulk: bool) -> _Log:
    log = _Log()
    engine = Engine(size, preset("llama-8b-h100").cost, log, seed=9, bulk=bulk)
    chance = random.Random(4)
    for number, seconds in enumerate(arrivals.first(arrivals.poisson(30.0, chance), 2_000)):
        now = int(seconds * 1e12)
        engine.advance(now)
        sequence = engine.add(make(number), now)
        if chance.random() < 0.05:
            engine.abort(sequence)
    engine.advance(10**17)
    return log


def is_deterministic() -> bool:
    """Return whether two runs with one seed, and one run step by step, have the same events."""
    size = EngineSettings(kv_blocks=600, max_num_seqs=32, max_model_len=4_096)

    def events(*, bulk: bool) -> list[tuple[str, str, int]]:
        make = shared_prompts(
            random.Random(2), groups=10, shared_tokens=128, own_tokens=64, output_tokens=80
        )
        return _one_life(make, size, bulk=bulk).events

    first = events(bulk=True)
    return first == events(bulk=True) == events(bulk=False)


def cache_error() -> float:
    """Return how far the cache's hits are from a count that compares whole prefixes.

    It is the worse of two: with events of each block, and without.
    """
    return max(_cache_error(_Log()), _cache_error(Listener()))


def _cache_error(listener: Listener) -> float:
    size = EngineSettings(kv_blocks=120, max_num_seqs=1, max_model_len=1_024)
    engine = Engine(size, preset("instant").cost, listener, seed=3)
    make = shared_prompts(
        random.Random(8), groups=9, shared_tokens=100, own_tokens=30, output_tokens=40
    )
    plain = _PlainCache(size.kv_blocks, size.block_size)
    now, expected = 0, 0
    for number in range(1_500):
        sequence = engine.add(make(number), now)
        engine.advance(now + 10**15)
        now = engine.now_ps
        tokens = sequence.ids(0, sequence.prompt_tokens + sequence.request.output_tokens - 1)
        expected += plain.serve(tokens, sequence.prompt_tokens)
    assert 0 < expected < engine.counts.cache_queries
    return abs(engine.counts.cache_hits - expected) / expected


class _PlainCache:
    """One request at a time, whole prefixes instead of hashes, and a list in order of last use."""

    def __init__(self, blocks: int, size: int) -> None:
        self._fresh = blocks
        self._size = size
        self._idle: list[bytes | None] = []

    def serve(self, tokens: bytes, prompt_tokens: int) -> int:
        width = 4 * self._size
        full = len(tokens) // width
        prefixes = [tokens[: width * (number + 1)] for number in range(full)]
        hits = 0
        while hits < (prompt_tokens - 1) // self._size and prefixes[hits] in self._idle:
            hits += 1
        for prefix in prefixes[:hits]:
            self._idle.remove(prefix)
        needed = -(-len(tokens) // width) - hits
        fresh = min(needed, self._fresh)
        self._fresh -= fresh
        del self._idle[: needed - fresh]
        held: list[bytes | None] = [*prefixes[:hits]]
        held += prefixes[hits:]
        held += [None] * (hits + needed - len(held))
        self._idle += reversed(held)
        return hits * self._size
