"""The metrics of one engine, under vLLM's names: counted as it goes, written down when scraped."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from typing_extensions import override

from tidegate.simulator.engine.cost import PICOSECONDS
from tidegate.simulator.engine.engine import Engine
from tidegate.simulator.engine.listener import Listener, Steps
from tidegate.simulator.engine.sequence import Sequence, State
from tidegate.simulator.metrics.fake import FakeMetrics, Fakes, Lora
from tidegate.simulator.metrics.families import COUNTERS, GAUGES, HISTOGRAMS
from tidegate.simulator.metrics.histogram import Histogram, one_two_five

REASONS = ("stop", "length", "abort", "error", "repetition")
REJECTIONS = ("max_num_queued_reqs", "max_num_queued_tokens")
SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
# The sources of keys and values that were not computed.
TIERS = ("device", "host", "p2p", "disk", "external_unspecified")
STAGES = ("waiting_to_start", "in_progress", "completed_waiting")
SLEEP_STATES = ("awake", "weights_offloaded", "discard_all")

# By the name of a label, or by "" for none: the value of the label, and the value.
Values = dict[str, dict[str, float]]


class EngineMetrics(Listener):
    """Listens to an engine. `settings` are the values of `cache_config_info`, by name.

    Attributes:
        sleep_state: one of `SLEEP_STATES`, or empty where it only pauses.
        rejections: requests that were not taken in, by reason.
    """

    def __init__(
        self,
        model: str,
        length_max: int,
        settings: Mapping[str, object],
        *,
        fakes: Fakes,
        adapters_max: int | None,
        now: Callable[[], float],
    ) -> None:
        self.sleep_state = SLEEP_STATES[0]
        self.rejections: Counter[str] = Counter()
        self._finished_by_reason: Counter[str] = Counter()
        self._labels = f'engine="0",model_name="{_escaped(model)}"'
        self._model_label = f'model_name="{_escaped(model)}"'
        self._settings = settings
        self._length_max = length_max
        self._fakes = fakes
        self._adapters_max = adapters_max
        self._now = now
        self._began = now()
        self._first_tokens = 0
        self._cached_tokens = 0
        self._external_tokens = 0
        lengths = one_two_five(length_max)
        self._histograms = {
            name: Histogram(lengths if bounds is None else bounds)
            for name, (bounds, _) in HISTOGRAMS.items()
        }
        self._step_tokens = self._histograms["iteration_tokens_total"]
        self._inter_token = self._histograms["inter_token_latency_seconds"]
        self._first_token = self._histograms["time_to_first_token_seconds"]

    # What is received

    @override
    def stepped(self, steps: Steps) -> None:
        tokens = steps.prefilled + steps.decoding + self._first_tokens
        self._step_tokens.see(tokens, steps.number)
        self._first_tokens = 0
        if steps.decoding:
            first, last = steps.first_ps / PICOSECONDS, steps.last_ps / PICOSECONDS
            self._inter_token.see_evenly(first, last, steps.number, steps.decoding)

    @override
    def scheduled(self, sequence: Sequence, at_ps: int) -> None:
        cached = sequence.cached_tokens or 0
        self._cached_tokens += cached
        if sequence.request.transfer_ps is not None:
            self._external_tokens += max(0, sequence.prompt_tokens - 1 - cached)

    @override
    def first_token(self, sequence: Sequence, at_ps: int) -> None:
        self._first_tokens += 1
        self._first_token.see((at_ps - sequence.arrived_ps) / PICOSECONDS)

    @override
    def finished(self, sequence: Sequence, at_ps: int) -> None:
        scheduled, first = sequence.scheduled_ps, sequence.first_token_ps
        assert scheduled is not None, "it finished before it began"
        assert first is not None, "it finished without a token"
        output = sequence.request.output_tokens
        decode = (at_ps - first) / PICOSECONDS
        found = self._histograms
        found["e2e_request_latency_seconds"].see((at_ps - sequence.arrived_ps) / PICOSECONDS)
        found["request_queue_time_seconds"].see((scheduled - sequence.arrived_ps) / PICOSECONDS)
        found["request_inference_time_seconds"].see((at_ps - scheduled) / PICOSECONDS)
        found["request_prefill_time_seconds"].see((first - scheduled) / PICOSECONDS)
        found["request_decode_time_seconds"].see(decode)
        each = decode / (output - 1) if output > 1 else 0.0
        found["request_time_per_output_token_seconds"].see(each)
        found["request_prompt_tokens"].see(sequence.prompt_tokens)
        found["request_generation_tokens"].see(output)
        found["request_max_num_generation_tokens"].see(output)
        computed = sequence.prompt_tokens - (sequence.cached_tokens or 0)
        found["request_prefill_kv_computed_tokens"].see(computed)
        found["request_num_preemptions"].see(sequence.preemptions)

    def request_ended(self, reason: str, tokens_max: int, choices: int) -> None:
        """Record what a request asked for, and why one of its answers ended."""
        self._finished_by_reason[reason] += 1
        self._histograms["request_params_max_tokens"].see(tokens_max)
        self._histograms["request_params_n"].see(choices)

    # What is shown

    def text(self, engine: Engine, sequences: Iterable[Sequence]) -> bytes:
        """Return everything in the text format of Prometheus; `sequences` are all in the engine."""
        shown = self._fakes.shown
        if shown is None:
            values = self._gauges(engine, sequences) | self._counters(engine)
            histograms = self._histograms
        else:
            values = self._faked(shown)
            histograms = shown.filled(self._length_max)
        lines: list[str] = []
        for name, about in GAUGES.items():
            if name == "lora_requests_info":
                lines += self._loras(engine, about)
            else:
                lines += self._family(f"vllm:{name}", "gauge", about, values.get(name))
        for name, about in COUNTERS.items():
            lines += self._family(f"vllm:{name}_total", "counter", about, values[name])
            began = {
                label: dict.fromkeys(each, self._began) for label, each in values[name].items()
            }
            lines += self._family(f"vllm:{name}_created", "gauge", about, began)
        for name, histogram in histograms.items():
            about = HISTOGRAMS[name][1]
            lines += (f"# HELP vllm:{name} {about}", f"# TYPE vllm:{name} histogram")
            lines += histogram.lines(f"vllm:{name}", self._labels + ",")
            lines += self._family(f"vllm:{name}_created", "gauge", about, _bare(self._began))
        return ("\n".join(lines) + "\n").encode()

    def _gauges(self, engine: Engine, sequences: Iterable[Sequence]) -> dict[str, Values]:
        waiting = [each for each in sequences if each.state in {State.WAITING, State.ARRIVING}]
        stages = Counter(filter(None, map(_stage, waiting)))
        running, _ = engine.loras()
        is_full = len(running) >= (self._adapters_max or math.inf)
        deferred = sum(
            each.state is State.ARRIVING
            or (is_full and each.request.lora is not None and each.request.lora not in running)
            for each in waiting
        )
        load = self._load(engine.running, engine.waiting, engine.kv_usage, deferred)
        return load | _fetches(stages)

    def _load(
        self, running: float, waiting: float, usage: float, deferred: float = 0
    ) -> dict[str, Values]:
        return {
            "num_requests_running": _bare(running),
            "num_requests_waiting": _bare(waiting),
            "num_requests_waiting_by_reason": {
                "reason": {"capacity": waiting - deferred, "deferred": deferred}
            },
            "engine_sleep_state": {
                "sleep_state": {state: state == self.sleep_state for state in SLEEP_STATES}
            },
            "kv_cache_usage_perc": _bare(usage),
        }

    def _faked(self, shown: FakeMetrics) -> dict[str, Values]:
        """Return what was made up; nothing of what happened."""
        gauge = self._fakes.gauge
        load = self._load(
            round(gauge(shown.running_requests)),
            round(gauge(shown.waiting_requests)),
            gauge(shown.kv_cache_usage),
        )
        reasons = dict.fromkeys(REASONS, 0.0) | {
            name: float(count) for name, count in shown.request_success_total.items()
        }
        return (
            load
            | _fetches({})
            | _nothing()
            | {
                "prefix_cache_queries": _bare(shown.prefix_cache_queries),
                "prefix_cache_hits": _bare(shown.prefix_cache_hits),
                "prompt_tokens": _bare(sum(shown.request_prompt_tokens)),
                "generation_tokens": _bare(sum(shown.request_generation_tokens)),
                "request_success": {"finished_reason": reasons},
            }
        )

    def _loras(self, engine: Engine, about: str) -> Iterator[str]:
        """Yield the adapters in use, if there can be any; the value is a time, as in vLLM."""
        if self._fakes.shown is not None:
            lora = self._fakes.lora()
            if lora is None:
                return
        elif self._adapters_max is None:
            return
        else:
            running, waiting = engine.loras()
            lora = Lora(",".join(running), ",".join(waiting), self._now())
        yield f"# HELP vllm:lora_requests_info {about}"
        yield "# TYPE vllm:lora_requests_info gauge"
        shown = {
            "max_lora": str(self._adapters_max or 1),
            "running_lora_adapters": lora.running,
            "waiting_lora_adapters": lora.waiting,
        }
        labels = ",".join([f'{name}="{_escaped(value)}"' for name, value in shown.items()])
        yield f"vllm:lora_requests_info{{{labels}}} {float(lora.timestamp)!r}"

    def _counters(self, engine: Engine) -> dict[str, Values]:
        counts = engine.counts
        local, external = float(self._cached_tokens), float(self._external_tokens)
        cached = dict.fromkeys(TIERS, 0.0) | {"device": local, "p2p": external}
        by_source = {
            "local_compute": float(counts.prompt_tokens),
            "local_cache_hit": local,
            "external_kv_transfer": external,
        }
        reasons = {reason: float(self._finished_by_reason[reason]) for reason in REASONS}
        rejections = {reason: float(self.rejections[reason]) for reason in REJECTIONS}
        return _nothing() | {
            "prefix_cache_queries": _bare(counts.cache_queries),
            "prefix_cache_hits": _bare(counts.cache_hits),
            "external_prefix_cache_queries": _bare(self._external_tokens),
            "external_prefix_cache_hits": _bare(self._external_tokens),
            "num_preemptions": _bare(counts.preemptions),
            "prompt_tokens": _bare(sum(by_source.values())),
            "prompt_tokens_by_source": {"source": by_source},
            "prompt_tokens_cached": _bare(sum(cached.values())),
            "prompt_tokens_cached_by_source": {"source": cached},
            "generation_tokens": _bare(counts.generated_tokens),
            "request_success": {"finished_reason": reasons},
            "admission_rejections": {"reason": rejections},
        }

    def _family(self, name: str, kind: str, about: str, values: Values | None) -> Iterator[str]:
        yield f"# HELP {name} {about}"
        yield f"# TYPE {name} {kind}"
        if values is None:
            shown = [f'{key}="{_escaped(str(value))}"' for key, value in self._settings.items()]
            yield f'{name}{{{",".join(shown)},engine="0"}} 1.0'
            return
        # Who was not let in was of no engine.
        labels = self._model_label if "admission" in name else self._labels
        for label, each in values.items():
            for text, value in each.items():
                extra = f',{label}="{_escaped(text)}"' if label else ""
                yield f"{name}{{{labels}{extra}}} {float(value)!r}"


def _nothing() -> dict[str, Values]:
    """Return every counter at 0, with the labels that it has."""
    return dict.fromkeys(COUNTERS, _bare(0)) | {
        "prompt_tokens_by_source": {"source": dict.fromkeys(SOURCES, 0.0)},
        "prompt_tokens_cached_by_source": {"source": dict.fromkeys(TIERS, 0.0)},
        "request_success": {"finished_reason": dict.fromkeys(REASONS, 0.0)},
        "admission_rejections": {"reason": dict.fromkeys(REJECTIONS, 0.0)},
    }


def _fetches(stages: Mapping[str, int]) -> dict[str, Values]:
    shown = {stage: float(stages.get(stage, 0)) for stage in STAGES}
    return {"num_requests_kv_fetch_by_stage": {"stage": shown}}


def _stage(sequence: Sequence) -> str:
    """Return the stage of what a waiting sequence gets from elsewhere; empty for nothing."""
    if sequence.request.transfer_ps is None or sequence.preemptions:
        return ""
    if sequence.state is State.ARRIVING:
        return STAGES[1]
    return STAGES[2] if sequence.blocks else STAGES[0]


def _bare(value: float) -> Values:
    return {"": {"": value}}


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
