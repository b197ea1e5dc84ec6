"""The metrics have vLLM's names, types, labels and buckets, and count what happened."""

import re
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.metrics.histogram import Histogram, one_two_five
from tidegate.simulator.settings import SimulatorSettings
from tidegate.testing.simulated import Simulated, simulated

STEP = Cost.of_seconds(fixed=0.004, prefill_token=0.0, decode_seq=0.0, context_token=0.0)
SETTINGS = SimulatorSettings(
    models=("first", "second"),
    cost=STEP,
    engine=EngineSettings(max_num_seqs=1, max_model_len=100, kv_blocks=100),
)
LABELS = 'engine="0",model_name="first"'
# As a running vLLM 0.32 tells them; the parser takes `_total` off counters.
FAMILIES = {
    "gauge": {
        *("num_requests_running", "num_requests_waiting", "num_requests_waiting_by_reason"),
        *("engine_sleep_state", "kv_cache_usage_perc", "cache_config_info"),
    },
    "counter": {
        *("prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries"),
        *("external_prefix_cache_hits", "mm_cache_queries", "mm_cache_hits", "num_preemptions"),
        *("prompt_tokens", "prompt_tokens_by_source", "prompt_tokens_cached"),
        *("prompt_tokens_cached_by_source", "generation_tokens"),
        *("request_success", "admission_rejections", "estimated_flops_per_gpu"),
        *("estimated_read_bytes_per_gpu", "estimated_write_bytes_per_gpu"),
    },
    "histogram": {
        *("request_prompt_tokens", "request_generation_tokens", "iteration_tokens_total"),
        *("request_max_num_generation_tokens", "request_params_n", "request_params_max_tokens"),
        *("time_to_first_token_seconds", "inter_token_latency_seconds"),
        *("request_time_per_output_token_seconds", "e2e_request_latency_seconds"),
        *("request_queue_time_seconds", "request_inference_time_seconds"),
        *("request_prefill_time_seconds", "request_decode_time_seconds"),
        *("request_prefill_kv_computed_tokens", "request_num_preemptions"),
    },
}


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    async with simulated(SETTINGS) as server:
        yield server


async def test_the_families_are_vllms(server: Simulated) -> None:
    text = (await server.client.get("/metrics")).text
    found: dict[str, set[str]] = {"gauge": set(), "counter": set(), "histogram": set()}
    for family in text_string_to_metric_families(text):
        assert family.name.startswith("vllm:")
        found[family.type].add(family.name.removeprefix("vllm:"))
        for sample in family.samples:
            if family.name != "vllm:admission_rejections":
                assert sample.labels["engine"] == "0"
            if family.name != "vllm:cache_config_info":
                assert sample.labels["model_name"] == "first"
    assert found == FAMILIES
    edges = re.findall(r'prompt_tokens_bucket{[^}]*le="([^"]+)"', text)
    assert edges[:8] == ["1.0", "2.0", "5.0", "10.0", "20.0", "50.0", "100.0", "+Inf"]


async def test_a_request_is_counted_once_everywhere(server: Simulated) -> None:
    body = {"prompt": [1] * 20, "max_tokens": 5, "ignore_eos": True, "n": 2, "model": "second"}
    assert (await server.post("/v1/completions", **body)).status_code == 200
    expected = {
        'request_success_total{%s,finished_reason="length"}': 2,
        "generation_tokens_total{%s}": 10,
        "prompt_tokens_total{%s}": 40,
        'prompt_tokens_by_source_total{%s,source="local_compute"}': 24,
        'prompt_tokens_by_source_total{%s,source="local_cache_hit"}': 16,
        "prefix_cache_queries_total{%s}": 40,
        "prefix_cache_hits_total{%s}": 16,
        "request_params_n_sum{%s}": 4,
        "request_params_max_tokens_sum{%s}": 10,
        "request_generation_tokens_sum{%s}": 10,
        "iteration_tokens_total_sum{%s}": 34,
        "inter_token_latency_seconds_count{%s}": 8,
        "time_to_first_token_seconds_count{%s}": 2,
    }
    for sample, value in expected.items():
        assert await server.metric("vllm:" + sample % LABELS) == value, sample


async def test_times_count_from_the_arrival_with_the_queue(server: Simulated) -> None:
    body = {"prompt": [[1, 2], [3, 4]], "max_tokens": 10, "ignore_eos": True}
    await server.post("/v1/completions", **body)
    # One runs, the other waits for ten steps of 4 ms; its first token comes with the eleventh.
    first = await server.metric("vllm:time_to_first_token_seconds_sum")
    # Both arrive at once but for the time that it takes to read them.
    assert first == pytest.approx(0.004 * (1 + 11), abs=0.003)
    assert await server.metric("vllm:request_queue_time_seconds_sum") == pytest.approx(
        0.04, abs=0.003
    )
    assert await server.metric("vllm:e2e_request_latency_seconds_sum") == pytest.approx(
        0.12, abs=0.003
    )
    assert await server.metric("vllm:request_decode_time_seconds_sum") == pytest.approx(0.072)
    assert await server.metric("vllm:inter_token_latency_seconds_sum") == pytest.approx(0.072)


async def test_rejections_are_counted_by_reason() -> None:
    settings = SimulatorSettings(queued_requests_max=0)
    async with simulated(settings) as server:
        assert (await server.post("/v1/completions", prompt="x")).status_code == 503
        sample = 'vllm:admission_rejections_total{model_name="sim",reason="max_num_queued'
        assert await server.metric(sample + "_reqs") == 1
        assert await server.metric(sample + "_tokens") == 0


def test_one_two_five() -> None:
    assert one_two_five(100) == (1, 2, 5, 10, 20, 50, 100)
    assert one_two_five(99) == (1, 2, 5, 10, 20, 50)


def test_values_that_go_evenly_are_seen_as_one_by_one() -> None:
    for first, last, count in ((0.5, 9.5, 10), (1.0, 1.0, 5), (0.1, 30.0, 7), (3.0, 3.5, 1)):
        at_once, each = Histogram((1, 2, 5, 10, 20)), Histogram((1, 2, 5, 10, 20))
        at_once.see_evenly(first, last, count, 3)
        step = (last - first) / (count - 1) if count > 1 else 0.0
        for place in range(count):
            each.see(first + step * place, 3)
        assert at_once.counts == each.counts
        if count > 1:
            assert at_once.total == pytest.approx(each.total)
