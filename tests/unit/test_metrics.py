"""Metrics come out under the names that are documented, and stay bounded."""

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from tidegate.domain.usage import Usage
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.processor_metrics import MODELS_MAX

NO_USAGE = Usage()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def lines(metrics: Metrics) -> list[str]:
    return metrics.render().decode().splitlines()


def test_every_name_begins_with_the_product() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    families = list(registry.collect())
    assert len(families) > 15
    assert all(family.name.startswith("tidegate_") for family in families)
    assert all(family.documentation.endswith(".") for family in families)


def test_two_processes_in_one_program_do_not_mix(metrics: Metrics) -> None:
    other = Metrics(CollectorRegistry())
    metrics.processor.on_attempts("gpu", "ok", 1)
    assert 'tidegate_attempts_total{endpoint="gpu",outcome="ok"} 1.0' in lines(metrics)
    assert not [line for line in lines(other) if line.startswith("tidegate_attempts_total{")]


def test_requests_are_counted_and_timed(metrics: Metrics) -> None:
    metrics.http.on_request("GET", "/v1/files/{id}", 200, 0.003)
    metrics.http.on_request("GET", "/v1/files/{id}", 200, 0.3)
    metrics.http.on_request("BREW", "/v1/files/{id}", 405, 0.001)
    found = lines(metrics)
    labels = 'method="GET",route="/v1/files/{id}",status="200"'
    assert f"tidegate_http_requests_total{{{labels}}} 2.0" in found
    labels = 'method="other",route="/v1/files/{id}",status="405"'
    assert f"tidegate_http_requests_total{{{labels}}} 1.0" in found
    labels = 'le="0.005",route="/v1/files/{id}"'
    assert f"tidegate_http_request_seconds_bucket{{{labels}}} 2.0" in found


def test_lines_and_tokens_add_up(metrics: Metrics) -> None:
    usage = Usage(input_tokens=10, cached_tokens=4, output_tokens=7, reasoning_tokens=2)
    metrics.processor.on_lines_done("small", 3, 1, usage)
    metrics.processor.on_lines_done("small", 2, 0, usage)
    found = lines(metrics)
    assert 'tidegate_lines_total{model="small",outcome="completed"} 5.0' in found
    assert 'tidegate_lines_total{model="small",outcome="failed"} 1.0' in found
    for direction, count in {"input": 20, "cached": 8, "output": 14, "reasoning": 4}.items():
        labels = f'direction="{direction}",model="small"'
        assert f"tidegate_tokens_total{{{labels}}} {count}.0" in found


def test_models_beyond_the_bound_share_one_label(metrics: Metrics) -> None:
    for number in range(MODELS_MAX):
        metrics.processor.on_lines_done(f"model-{number}", 1, 0, NO_USAGE)
    metrics.processor.on_lines_done("one-more", 1, 0, NO_USAGE)
    metrics.processor.on_lines_done("two-more", 1, 0, NO_USAGE)
    metrics.processor.on_lines_done("model-0", 1, 0, NO_USAGE)
    completed = [
        line
        for line in lines(metrics)
        if line.startswith("tidegate_lines_total{") and 'outcome="completed"' in line
    ]
    assert len(completed) == MODELS_MAX + 1
    assert 'tidegate_lines_total{model="other",outcome="completed"} 2.0' in completed
    assert 'tidegate_lines_total{model="model-0",outcome="completed"} 2.0' in completed


def test_the_latest_state_is_shown(metrics: Metrics) -> None:
    observer = metrics.processor
    observer.on_endpoint_state("gpu", limit=8, in_flight=3, reason=None)
    observer.on_load(in_flight=3, open_shards=4, uncommitted=12)
    assert 'tidegate_in_flight{endpoint="gpu"} 3.0' in lines(metrics)
    observer.on_endpoint_state("gpu", limit=8, in_flight=5, reason="busy")
    found = lines(metrics)
    assert 'tidegate_in_flight{endpoint="gpu"} 5.0' in found
    assert 'tidegate_limit{endpoint="gpu"} 8.0' in found
    assert 'tidegate_endpoint_backoff{endpoint="gpu"} 1.0' in found
    assert "tidegate_uncommitted_lines 12.0" in found
    assert "tidegate_open_shards 4.0" in found


def test_a_second_processor_counts_and_keeps_no_state(metrics: Metrics) -> None:
    metrics.processor.on_load(in_flight=3, open_shards=4, uncommitted=12)
    with capture_logs() as logs:
        second = metrics.processor.logged_as("collector")
        second.on_load(in_flight=0, open_shards=0, uncommitted=0)
        second.on_disk_full("No room.")
        second.on_claim("shard")
    assert logs[0]["room"] == "collector"
    found = lines(metrics)
    assert "tidegate_open_shards 4.0" in found
    assert "tidegate_storage_full 0.0" in found
    assert 'tidegate_claims_total{kind="shard"} 1.0' in found


def test_claims_commits_and_lag_are_counted(metrics: Metrics) -> None:
    observer = metrics.processor
    observer.on_claim("shard")
    observer.on_claim_lost("shard")
    observer.on_commit(30, 0.004)
    observer.on_lines_repeated(7)
    metrics.loop_lag(0.25)
    found = lines(metrics)
    assert 'tidegate_claims_total{kind="shard"} 1.0' in found
    assert 'tidegate_claims_lost_total{kind="shard"} 1.0' in found
    assert "tidegate_commits_total 1.0" in found
    assert 'tidegate_commit_lines_bucket{le="50.0"} 1.0' in found
    assert 'tidegate_commit_seconds_bucket{le="0.005"} 1.0' in found
    assert "tidegate_repeated_lines_total 7.0" in found
    assert "tidegate_loop_lag_seconds 0.25" in found
