"""Made-up metrics: constants and curves, and nothing of the truth among them."""

import json

import pytest

from testkit.servers.simulated import Simulated, simulated
from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.metrics.fake import VALUES_MAX, FakeMetrics, Fakes, curve_of, fakes_from
from tidegate.simulator.server.models import AdapterFlag
from tidegate.simulator.settings import SimulatorSettings

COMPLETION = "/v1/completions"
SETTINGS = SimulatorSettings(models=("base",), adapters=(AdapterFlag("poet", "s3://poet"),))


FAKE: dict[str, object] = {
    "running-requests": 10,
    "waiting-requests": 30,
    "kv-cache-usage": 0.4,
    "request-success-total": {"stop": 20},
    "request-prompt-tokens": [10, 20, 30],
    "ttft-buckets-values": [1, 2, 3],
    "tpot-buckets-values": [0, 0, 1],
    "loras": [
        {"running": "late", "waiting": "", "timestamp": 2},
        {"running": "early", "waiting": "", "timestamp": 1},
    ],
    "histograms": {"request_params_n": [5]},
}


async def test_fake_and_real_never_mix() -> None:
    async with simulated(SETTINGS) as server:
        await fake_and_real(server)


async def fake_and_real(server: Simulated) -> None:
    await server.post(COMPLETION, prompt="x y z", max_tokens=2)
    real = (await server.client.get("/metrics")).text
    reply = await server.post("/admin/metrics", **FAKE)
    assert reply.status_code == 200, reply.text
    assert reply.json()["fake"]["running-requests"] == 10
    labels = 'engine="0",model_name="base"'
    expected = {
        "num_requests_running{%s}": 10,
        "num_requests_waiting{%s}": 30,
        "kv_cache_usage_perc{%s}": 0.4,
        'request_success_total{%s,finished_reason="stop"}': 20,
        'request_success_total{%s,finished_reason="length"}': 0,
        "prompt_tokens_total{%s}": 60,
        "generation_tokens_total{%s}": 0,
        "request_prompt_tokens_count{%s}": 3,
        "time_to_first_token_seconds_count{%s}": 6,
        'time_to_first_token_seconds_bucket{%s,le="0.005"}': 3,
        "inter_token_latency_seconds_count{%s}": 1,
        "request_params_n_count{%s}": 5,
        "e2e_request_latency_seconds_count{%s}": 0,
    }
    for sample, value in expected.items():
        assert await server.metric("vllm:" + sample % labels) == value, sample
    fake = (await server.client.get("/metrics")).text
    assert 'running_lora_adapters="late"' in fake
    await server.client.post("/admin/metrics", content=b"null")
    after = (await server.client.get("/metrics")).text
    # All else is of the process, which lives on.
    kept = [
        [
            row
            for row in text.splitlines()
            if row.startswith("vllm:") and not row.startswith("vllm:lora_requests_info")
        ]
        for text in (after, real)
    ]
    assert kept[0] == kept[1]
    assert "vllm:sleep_mode" in real
    assert "vllm:sleep_mode" not in fake


def test_curves_go_as_they_are_named() -> None:
    ramp, reset = curve_of("ramp:10:20:10s").at, curve_of("rampreset:10:20:10s").at
    square, wave = curve_of("squarewave:0:1:500ms").at, curve_of("oscillate:4:8:1m").at
    assert [ramp(at) for at in (0, 5, 10, 99)] == [10, 15, 20, 20]
    assert [reset(at) for at in (0, 5, 10, 15)] == [10, 15, 10, 15]
    assert [square(at) for at in (0, 0.24, 0.25, 0.49, 0.5)] == [0, 0, 1, 1, 0]
    assert [wave(at) for at in (0, 15, 30, 60)] == pytest.approx([4, 6, 8, 4])
    assert curve_of("ramp:100:0:2h").at(3_600) == 50
    assert curve_of(7).at(1e9) == 7


async def test_curves_begin_when_they_are_set() -> None:
    now = 0.0
    fakes = Fakes(FakeMetrics(running_requests="ramp:0:10:10s"), lambda: now)
    now = 5.0
    assert fakes.gauge("ramp:0:10:10s") == 5
    fakes.replace(FakeMetrics())
    assert fakes.gauge("ramp:0:10:10s") == 0


@pytest.mark.parametrize(
    "metrics",
    [
        {"running-requests": -1},
        {"running-requests": "ramp"},
        {"running-requests": "climb:0:1:1s"},
        {"running-requests": "ramp:0:x:1s"},
        {"running-requests": "ramp:0:1:0s"},
        {"running-requests": "ramp:0:1:1y"},
        {"running-requests": "ramp:0:-1:1s"},
        {"running-requests": "ramp:0:inf:1s"},
        {"kv-cache-usage": "ramp:0:2:1s"},
        {"ttft-buckets-values": [1] * 24},
        {"ttft-buckets-values": [-1]},
        {"histograms": {"unknown": [1]}},
        {"request-prompt-tokens": [1] * (VALUES_MAX + 1)},
        {"request-success-total": {"stop": -1}},
        {"something": 1},
    ],
    ids=str,
)
async def test_metrics_that_make_no_sense_are_refused(metrics: dict[str, object]) -> None:
    with pytest.raises(SettingsInvalid, match="--fake-metrics"):
        fakes_from(json.dumps(metrics))
    async with simulated() as server:
        assert (await server.post("/admin/metrics", **metrics)).status_code == 400
        assert (await server.client.get("/admin/metrics")).json() == {"fake": None}


def test_metrics_at_their_bounds_are_taken() -> None:
    metrics = {"ttft-buckets-values": [1] * 23, "request-prompt-tokens": [1] * VALUES_MAX}
    filled = fakes_from(json.dumps(metrics)).filled(1_000)
    assert filled["time_to_first_token_seconds"].counts[-1] == 1
    assert sum(filled["request_prompt_tokens"].counts) == VALUES_MAX
