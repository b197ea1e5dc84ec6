"""The metrics of one engine, under vLLM's names: counted as it goes, written down when scraped."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from typing_extensions import override

from tidegate.simulator.engine.cost import PICOSECONDS
from tidegate.simulator.engine.engine import Engine
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.sequence import Sequence
from tidegate.simulator.metrics.histogram import (
    CHOICES,
    TIMES_BETWEEN,
    TIMES_OF_REQUESTS,
    TIMES_TO_FIRST,
    TOKENS_OF_STEPS,
    Histogram,
    one_two_five,
)

REASONS = ("stop", "length", "abort", "error", "repetition")
SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")

Samples = Iterator[tuple[str, float]]
Family = tuple[str, str, str, Callable[[], Samples]]


class EngineMetrics(Listener):
    """Hears an engine. `settings` are what `cache_config_info` tells, by name."""

    def __init__(self, model: str, length_max: int, settings: Mapping[str, object]) -> None:
        self.finished_by_reason: Counter[str] = Counter()
        self.rejections: Counter[str] = Counter()
        self._labels = f'engine="0",model_name="{_escaped(model)}"'
        self._settings = settings
        self._first_tokens = 0
        self._cached_tokens = 0
        self._external_tokens = 0
        self._recomputed_tokens = 0
        lengths = one_two_five(length_max)
        self.prompt_tokens = Histogram(lengths)
        self.generation_tokens = Histogram(lengths)
        self.step_tokens = Histogram(TOKENS_OF_STEPS)
        self.max_generation_tokens = Histogram(lengths)
        self.params_n = Histogram(CHOICES)
        self.params_max_tokens = Histogram(lengths)
        self.first_token_seconds = Histogram(TIMES_TO_FIRST)
        self.inter_token_seconds = Histogram(TIMES_BETWEEN)
        self.per_output_token_seconds = Histogram(TIMES_BETWEEN)
        self.e2e_seconds = Histogram(TIMES_OF_REQUESTS)
        self.queue_seconds = Histogram(TIMES_OF_REQUESTS)
        self.inference_seconds = Histogram(TIMES_OF_REQUESTS)
        self.prefill_seconds = Histogram(TIMES_OF_REQUESTS)
        self.decode_seconds = Histogram(TIMES_OF_REQUESTS)
        self.prefill_computed = Histogram(lengths)

    # What is heard

    @override
    def stepped(
        self,
        *,
        steps: int,
        first_ps: int,
        last_ps: int,
        decoding: int,
        prefilled: int,
        ended_ps: int,
    ) -> None:
        self.step_tokens.see(prefilled + decoding + self._first_tokens, steps)
        self._first_tokens = 0
        if decoding:
            self.inter_token_seconds.see_evenly(
                first_ps / PICOSECONDS, last_ps / PICOSECONDS, steps, decoding
            )

    @override
    def scheduled(self, sequence: Sequence, at_ps: int) -> None:
        cached = sequence.cached_tokens or 0
        self._cached_tokens += cached
        if cached and cached == sequence.prompt_tokens - 1:
            self._recomputed_tokens += 1
        if sequence.request.transfer_ps is not None:
            self._external_tokens += max(0, sequence.prompt_tokens - 1 - cached)

    @override
    def first_token(self, sequence: Sequence, at_ps: int) -> None:
        self._first_tokens += 1
        self.first_token_seconds.see((at_ps - sequence.arrived_ps) / PICOSECONDS)

    @override
    def finished(self, sequence: Sequence, at_ps: int) -> None:
        scheduled, first = sequence.scheduled_ps, sequence.first_token_ps
        assert scheduled is not None, "it finished before it began"
        assert first is not None, "it finished without a token"
        output = sequence.request.output_tokens
        decode = (at_ps - first) / PICOSECONDS
        self.e2e_seconds.see((at_ps - sequence.arrived_ps) / PICOSECONDS)
        self.queue_seconds.see((scheduled - sequence.arrived_ps) / PICOSECONDS)
        self.inference_seconds.see((at_ps - scheduled) / PICOSECONDS)
        self.prefill_seconds.see((first - scheduled) / PICOSECONDS)
        self.decode_seconds.see(decode)
        self.per_output_token_seconds.see(decode / (output - 1) if output > 1 else 0.0)
        self.prompt_tokens.see(sequence.prompt_tokens)
        self.generation_tokens.see(output)
        self.max_generation_tokens.see(output)
        self.prefill_computed.see(sequence.prompt_tokens - (sequence.cached_tokens or 0))

    def request_ended(self, reason: str, tokens_max: int, choices: int) -> None:
        """Hear what the request asked for, and why one of its answers ended."""
        self.finished_by_reason[reason] += 1
        self.params_max_tokens.see(tokens_max)
        self.params_n.see(choices)

    # What is told

    def text(self, engine: Engine, *, sleep_state: str = "awake", deferred: int = 0) -> bytes:
        """Return everything in the text format of Prometheus."""
        lines: list[str] = []
        for name, kind, about, samples in self._families(engine, sleep_state, deferred):
            lines += (f"# HELP {name} {about}", f"# TYPE {name} {kind}")
            lines += [f"{row} {float(value)!r}" for row, value in samples()]
        for name, about, histogram in self._histograms():
            lines += (f"# HELP {name} {about}", f"# TYPE {name} histogram")
            lines += histogram.lines(name, self._labels + ",")
        return ("\n".join(lines) + "\n").encode()

    def _families(self, engine: Engine, sleep_state: str, deferred: int) -> Iterator[Family]:
        counts = engine.counts
        waiting = engine.waiting
        yield self._one(
            "num_requests_running",
            "gauge",
            engine.running,
            "Number of requests in model execution batches.",
        )
        yield self._one(
            "num_requests_waiting", "gauge", waiting, "Number of requests waiting to be processed."
        )
        yield self._several(
            "num_requests_waiting_by_reason",
            "gauge",
            "reason",
            {"capacity": waiting - deferred, "deferred": deferred},
            "Number of requests waiting to be processed, by reason.",
        )
        yield self._several(
            "engine_sleep_state",
            "gauge",
            "sleep_state",
            {state: state == sleep_state for state in SLEEP_STATES},
            "Engine sleep state; the one that holds is 1.",
        )
        yield self._one(
            "kv_cache_usage_perc",
            "gauge",
            engine.kv_usage,
            "KV-cache usage. 1 means 100 percent usage.",
        )
        yield self._one(
            "prefix_cache_queries_total",
            "counter",
            counts.cache_queries,
            "Prefix cache queries, in terms of number of queried tokens.",
        )
        yield self._one(
            "prefix_cache_hits_total",
            "counter",
            counts.cache_hits,
            "Prefix cache hits, in terms of number of cached tokens.",
        )
        yield self._one(
            "external_prefix_cache_queries_total",
            "counter",
            self._external_tokens,
            "External prefix cache queries from KV connector cross-instance cache "
            "sharing, in terms of number of queried tokens.",
        )
        yield self._one(
            "external_prefix_cache_hits_total",
            "counter",
            self._external_tokens,
            "External prefix cache hits from KV connector cross-instance cache "
            "sharing, in terms of number of cached tokens.",
        )
        yield self._one(
            "mm_cache_queries_total",
            "counter",
            0,
            "Multi-modal cache queries, in terms of number of queried items.",
        )
        yield self._one(
            "mm_cache_hits_total",
            "counter",
            0,
            "Multi-modal cache hits, in terms of number of cached items.",
        )
        yield self._one(
            "num_preemptions_total",
            "counter",
            counts.preemptions,
            "Cumulative number of preemption from the engine.",
        )
        yield from self._token_counters(engine)

    def _token_counters(self, engine: Engine) -> Iterator[Family]:
        counts = engine.counts
        cached = self._cached_tokens + self._external_tokens
        by_source = {
            "local_compute": counts.prompt_tokens,
            "local_cache_hit": self._cached_tokens,
            "external_kv_transfer": self._external_tokens,
        }
        yield self._one(
            "prompt_tokens_total",
            "counter",
            counts.prompt_tokens + cached,
            "Number of prefill tokens processed.",
        )
        yield self._several(
            "prompt_tokens_by_source_total",
            "counter",
            "source",
            by_source,
            "Number of prompt tokens by source.",
        )
        yield self._one(
            "prompt_tokens_cached_total",
            "counter",
            cached,
            "Number of cached prompt tokens (local + external).",
        )
        yield self._several(
            "prompt_tokens_cached_by_source_total",
            "counter",
            "source",
            {name: by_source[name] for name in SOURCES[1:]},
            "Number of cached prompt tokens by source.",
        )
        yield self._one(
            "prompt_tokens_recomputed_total",
            "counter",
            self._recomputed_tokens,
            "Number of cached tokens recomputed for forward pass.",
        )
        yield self._one(
            "generation_tokens_total",
            "counter",
            counts.generated_tokens,
            "Number of generation tokens processed.",
        )
        yield self._several(
            "request_success_total",
            "counter",
            "finished_reason",
            {reason: self.finished_by_reason[reason] for reason in REASONS},
            "Count of successfully processed requests.",
        )
        yield self._several(
            "admission_rejections_total",
            "counter",
            "reason",
            {reason: self.rejections[reason] for reason in REJECTIONS},
            "Number of requests rejected before they were queued.",
        )
        for what in ("flops", "read_bytes", "write_bytes"):
            yield self._one(
                f"estimated_{what}_per_gpu_total",
                "counter",
                0,
                f"Estimated number of {what.replace('_', ' ')} per GPU.",
            )
        told = "".join(
            f'{name}="{_escaped(str(value))}",' for name, value in self._settings.items()
        )
        yield (
            "vllm:cache_config_info",
            "gauge",
            "Information of the LLMEngine CacheConfig",
            lambda: iter([(f'vllm:cache_config_info{{{told}engine="0"}}', 1.0)]),
        )

    def _histograms(self) -> tuple[tuple[str, str, Histogram], ...]:
        return (
            (
                "vllm:request_prompt_tokens",
                "Number of prefill tokens processed.",
                self.prompt_tokens,
            ),
            (
                "vllm:request_generation_tokens",
                "Number of generation tokens processed.",
                self.generation_tokens,
            ),
            (
                "vllm:iteration_tokens_total",
                "Histogram of number of tokens per engine_step.",
                self.step_tokens,
            ),
            (
                "vllm:request_max_num_generation_tokens",
                "Histogram of maximum number of requested generation tokens.",
                self.max_generation_tokens,
            ),
            ("vllm:request_params_n", "Histogram of the n request parameter.", self.params_n),
            (
                "vllm:request_params_max_tokens",
                "Histogram of the max_tokens request parameter.",
                self.params_max_tokens,
            ),
            (
                "vllm:time_to_first_token_seconds",
                "Histogram of time to first token in seconds.",
                self.first_token_seconds,
            ),
            (
                "vllm:inter_token_latency_seconds",
                "Histogram of inter-token latency in seconds.",
                self.inter_token_seconds,
            ),
            (
                "vllm:request_time_per_output_token_seconds",
                "Histogram of time_per_output_token_seconds per request.",
                self.per_output_token_seconds,
            ),
            (
                "vllm:e2e_request_latency_seconds",
                "Histogram of e2e request latency in seconds.",
                self.e2e_seconds,
            ),
            (
                "vllm:request_queue_time_seconds",
                "Histogram of time spent in WAITING phase for request.",
                self.queue_seconds,
            ),
            (
                "vllm:request_inference_time_seconds",
                "Histogram of time spent in RUNNING phase for request.",
                self.inference_seconds,
            ),
            (
                "vllm:request_prefill_time_seconds",
                "Histogram of time spent in PREFILL phase for request.",
                self.prefill_seconds,
            ),
            (
                "vllm:request_decode_time_seconds",
                "Histogram of time spent in DECODE phase for request.",
                self.decode_seconds,
            ),
            (
                "vllm:request_prefill_kv_computed_tokens",
                "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
                self.prefill_computed,
            ),
        )

    def _one(self, name: str, kind: str, value: float, about: str) -> Family:
        row = f"vllm:{name}{{{self._labels}}}"
        return f"vllm:{name}", kind, about, lambda: iter([(row, value)])

    def _several(
        self, name: str, kind: str, label: str, values: Mapping[str, float], about: str
    ) -> Family:
        rows = [
            (f'vllm:{name}{{{self._labels},{label}="{each}"}}', value)
            for each, value in values.items()
        ]
        return f"vllm:{name}", kind, about, lambda: iter(rows)


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
