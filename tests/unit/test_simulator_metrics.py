"""The metrics have vLLM's names, types, labels and buckets, and count what happened."""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typing_extensions import override

from testkit.servers.simulated import WAIT_SECONDS, Simulated, simulated
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.sequence import State
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.metrics.histogram import Histogram, one_two_five
from tidegate.simulator.settings import SimulatorSettings
from tidegate.testing.contract.stores import ManualClock

STEP = Cost.of_seconds(fixed=0.004, prefill_token=0.0, decode_seq=0.0, context_token=0.0)
SETTINGS = SimulatorSettings(
    models=("first", "second"),
    cost=STEP,
    engine=EngineSettings(max_num_seqs=1, max_model_len=100, kv_blocks=100),
)
LABELS = 'engine="0",model_name="first"'
# As a running vLLM 0.32 shows them; the parser takes `_total` off counters.
FAMILIES = {
    "gauge": {
        *("num_requests_running", "num_requests_waiting", "num_requests_waiting_by_reason"),
        *("engine_sleep_state", "kv_cache_usage_perc", "cache_config_info"),
        *("num_requests_kv_fetch_by_stage", "sleep_mode_operations_in_flight"),
    },
    "counter": {
        *("prefix_cache_queries", "prefix_cache_hits", "external_prefix_cache_queries"),
        *("external_prefix_cache_hits", "mm_cache_queries", "mm_cache_hits", "num_preemptions"),
        *("prompt_tokens", "prompt_tokens_by_source", "prompt_tokens_cached"),
        *("prompt_tokens_cached_by_source", "generation_tokens"),
        *("request_success", "admission_rejections", "estimated_flops_per_gpu"),
        *("estimated_read_bytes_per_gpu", "estimated_write_bytes_per_gpu"),
        "tool_call_parser_invocations",
    },
    "histogram": {
        *("request_prompt_tokens", "request_generation_tokens", "iteration_tokens_total"),
        *("request_max_num_generation_tokens", "request_params_n", "request_params_max_tokens"),
        *("time_to_first_token_seconds", "inter_token_latency_seconds"),
        *("request_time_per_output_token_seconds", "e2e_request_latency_seconds"),
        *("request_queue_time_seconds", "request_inference_time_seconds"),
        *("request_prefill_time_seconds", "request_decode_time_seconds"),
        *("request_prefill_kv_computed_tokens", "request_num_preemptions"),
        "sleep_mode_operation_duration_seconds",
    },
}
# Of the server around the engine, without an engine's labels.
AROUND = ("admission_rejections", "tool_call", "sleep_mode", "http_", "process_", "python_")


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    async with simulated(SETTINGS) as server:
        yield server


async def test_the_families_are_vllms(server: Simulated) -> None:
    text = (await server.client.get("/metrics")).text
    found: dict[str, set[str]] = {"gauge": set(), "counter": set(), "histogram": set()}
    created = set()
    for family in text_string_to_metric_families(text):
        name = family.name.removeprefix("vllm:")
        if not name.startswith(AROUND):
            for sample in family.samples:
                assert sample.labels["engine"] == "0"
                if name != "cache_config_info":
                    assert sample.labels["model_name"] == "first"
        if not family.name.startswith("vllm:"):
            assert name.startswith(AROUND)
        elif name.endswith("_created"):
            created.add(name.removesuffix("_created"))
        else:
            found[family.type].add(name)
    assert found == FAMILIES
    assert created == FAMILIES["counter"] | FAMILIES["histogram"]
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


async def test_the_http_interface_is_counted(server: Simulated) -> None:
    """What somebody hangs up on before it is answered is not."""
    body = {"prompt": "x", "max_tokens": 2}
    whole = await server.post("/v1/completions", **body)
    await server.post("/v1/completions", **body, stream=True)
    await server.post("/v1/completions", prompt=[])
    await server.client.get("/nowhere/at/all")
    await server.client.get("/health")
    path = 'handler="/v1/completions"'
    assert await server.metric(f'http_requests_total{{{path},method="POST",status="2xx"}}') == 2
    assert await server.metric(f'http_requests_total{{{path},method="POST",status="4xx"}}') == 1
    assert await server.metric('http_requests_total{handler="none",method="GET"') == 1
    assert 'handler="/health"' not in (await server.client.get("/metrics")).text
    refused = len((await server.post("/v1/completions", prompt=[])).content)
    size = await server.metric(f"http_response_size_bytes_sum{{{path}")
    assert size == len(whole.content) + 2 * refused
    assert await server.metric(f"http_request_size_bytes_count{{{path}") == 4
    assert await server.metric("http_request_duration_highr_seconds_count") == 5
    seconds = await server.metric(f"http_request_duration_seconds_sum{{{path}")
    assert seconds >= 4 * 0.004  # Two answers of two steps.


async def test_the_process_is_shown(server: Simulated) -> None:
    assert await server.metric("process_resident_memory_bytes") > 1e6
    assert await server.metric("process_cpu_seconds_total") > 0
    assert await server.metric("python_info") == 1
    assert await server.metric("python_gc_collections_total") > 0


async def test_counters_show_when_they_began() -> None:
    class Wall(ManualClock):
        @override
        def now(self) -> float:
            return 1_234.5

    async with simulated(SETTINGS, wall=Wall()) as server:
        for name in ("prompt_tokens", "request_success", "iteration_tokens_total"):
            rows = (await server.client.get("/metrics")).text.splitlines()
            told = [row for row in rows if row.startswith(f"vllm:{name}_created{{")]
            assert {row.rpartition(" ")[2] for row in told} == {"1234.5"}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
async def test_answers_in_which_calls_were_looked_for_are_counted(
    server: Simulated, path: str
) -> None:
    function = {"name": "look", "parameters": {"type": "object"}}
    is_chat = path.endswith("completions")
    tool = {"type": "function", **({"function": function} if is_chat else function)}
    body: dict[str, object] = {"tools": [tool], "tool_choice": "required"}
    body |= {"messages": [{"role": "user", "content": "x"}]} if is_chat else {"input": "x"}
    kind = "chat_completions" if is_chat else "responses"
    await server.post(path, **body)
    streamed = (await server.post(path, **body, stream=True)).text
    await server.post(path, **body | {"tool_choice": "none"})
    name = "vllm:tool_call_parser_invocations_total"
    for mode, count in (("non_streaming", 1), ("streaming", None)):
        labels = f'mode="{mode}",model_name="first",outcome="tool_call",request_type="{kind}"'
        found = await server.metric(f"{name}{{{labels}}}")
        assert found == count if count else found > 1, streamed
    assert await server.metric(name) == await server.metric(f'{name}{{mode="streaming"') + 1


async def test_requests_that_wait_for_keys_and_values_are_shown_by_stage() -> None:
    settings = SimulatorSettings(
        cost=STEP, transfer_seconds=WAIT_SECONDS, engine=EngineSettings(max_num_seqs=1)
    )
    async with simulated(settings) as server, asyncio.TaskGroup() as group:
        body = {"max_tokens": 9, "kv_transfer_params": {"do_remote_prefill": True}}
        waiting = group.create_task(
            server.post("/v1/completions", prompt=[1] * 40, **body), name="remote"
        )
        await server.until(lambda: server.simulator.driver.engine.waiting == 1)
        stage = "vllm:num_requests_kv_fetch_by_stage{"
        await server.until(
            lambda: [each.state for each in server.simulator.driver.sequences()] == [State.ARRIVING]
        )
        rows = (await server.client.get("/metrics")).text.splitlines()
        told = [row for row in rows if row.startswith(stage)]
        assert [row.rpartition(" ")[2] for row in told] == ["0.0", "1.0", "0.0"]
        reason = "vllm:num_requests_waiting_by_reason{"
        told = [row for row in rows if row.startswith(reason)]
        assert [row.rpartition(" ")[2] for row in told] == ["0.0", "1.0"]
        waiting.cancel()


async def test_falling_asleep_is_timed() -> None:
    async with simulated(replace(SETTINGS, sleep_mode=True)) as server:
        body = {"prompt": "x", "max_tokens": 50, "ignore_eos": True}
        async with asyncio.TaskGroup() as group:
            group.create_task(server.post("/v1/completions", **body), name="request")
            await server.until(lambda: server.simulator.driver.engine.running == 1)
            group.create_task(server.client.post("/sleep?mode=wait"), name="sleep")
            await server.until(lambda: server.simulator.driver.is_paused)
            sample = 'vllm:sleep_mode_operations_in_flight{operation="sleep"}'
            assert await server.metric(sample) == 1
        assert await server.metric(sample) == 0
        await server.client.post("/wake_up")
        name = "vllm:sleep_mode_operation_duration_seconds"
        assert await server.metric(f'{name}_sum{{operation="sleep"}}') > 0.004
        assert await server.metric(f'{name}_count{{operation="wake"}}') == 1


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


async def test_what_comes_in_one_turn_of_the_loop_runs_together() -> None:
    async with simulated() as server:
        engine = server.simulator.driver.engine
        for number in range(1, 4):
            body = {"prompt": f"number {number}", "n": 4, "max_tokens": 5, "ignore_eos": True}
            assert (await server.post("/v1/completions", **body)).status_code == 200
            assert engine.counts.steps == 5 * number, "one prefills four, and four steps follow"
