"""What a processor reports is counted and logged, within bounds."""

from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from tidegate.domain.errors import SandboxDied, SandboxNotStarted
from tidegate.telemetry.logs import (
    ENDPOINT_BACKOFF_ENDED,
    ENDPOINT_BACKOFF_STARTED,
    PLANNING_DIED,
    PLANNING_QUARANTINED,
    POISON_LINE_FAILED,
    SANDBOX_DIED,
    SANDBOX_NOT_STARTED,
    SHARD_QUARANTINED,
    STORAGE_FREED,
    STORAGE_FULL,
)
from tidegate.telemetry.metrics import Metrics
from tidegate.telemetry.processor_metrics import ENDPOINTS_MAX, OTHER


def test_names_that_users_invent_do_not_grow_the_metrics() -> None:
    registry = CollectorRegistry()
    observer = Metrics(registry).processor
    for number in range(ENDPOINTS_MAX + 50):
        observer.on_attempts(f"upstream/{number}", "ok", 1)
        observer.on_endpoint_state(f"upstream/{number}", limit=1, in_flight=0, reason=None)
    text = generate_latest(registry).decode()
    counted = [line for line in text.splitlines() if line.startswith("tidegate_attempts_total{")]
    watched = [line for line in text.splitlines() if line.startswith("tidegate_limit{")]
    assert len(counted) == ENDPOINTS_MAX + 1
    assert f'tidegate_attempts_total{{endpoint="{OTHER}",outcome="ok"}} 50.0' in counted
    assert len(watched) == ENDPOINTS_MAX


def test_a_pause_is_logged_when_it_begins_and_when_it_ends() -> None:
    with capture_logs() as logs:
        observer = Metrics(CollectorRegistry()).processor
        for reason in (None, "refused", "refused", None, None):
            observer.on_endpoint_state("e", limit=1, in_flight=0, reason=reason)
    assert [log["event"] for log in logs] == [ENDPOINT_BACKOFF_STARTED, ENDPOINT_BACKOFF_ENDED]
    assert logs[0]["reason"] == "refused"


def test_what_runs_alone_is_counted_and_logged() -> None:
    registry = CollectorRegistry()
    with capture_logs() as logs:
        observer = Metrics(registry).processor
        observer.on_shard_quarantined("batch_1", 7)
        observer.on_line_sandboxed()
        observer.on_sandbox_death("batch_1", 12, SandboxDied("It is gone."))
        observer.on_sandbox_not_started(SandboxNotStarted("No room."))
        observer.on_poison_line("batch_1", 12)
        observer.on_quarantine_size(2)
        observer.on_planning_sandboxed("batch_2")
        observer.on_planning_death("batch_2", "line 3", SandboxDied("It is gone, too."))
    assert [log["event"] for log in logs] == [
        SHARD_QUARANTINED,
        SANDBOX_DIED,
        SANDBOX_NOT_STARTED,
        POISON_LINE_FAILED,
        PLANNING_QUARANTINED,
        PLANNING_DIED,
    ]
    assert (logs[0]["batch"], logs[0]["shard"]) == ("batch_1", 7)
    assert (logs[1]["line"], logs[1]["reason"]) == (12, "It is gone.")
    assert (logs[5]["batch"], logs[5]["place"]) == ("batch_2", "line 3")
    text = generate_latest(registry).decode()
    assert "tidegate_quarantined_lines_total 1.0" in text
    assert "tidegate_sandbox_deaths_total 2.0" in text
    assert "tidegate_quarantined_shards 2.0" in text


def test_full_storage_is_logged_once_and_shown_while_it_lasts() -> None:
    registry = CollectorRegistry()
    with capture_logs() as logs:
        observer = Metrics(registry).processor
        for reason, shown in (("No room.", "1.0"), (None, "0.0")):
            observer.on_disk_full(reason)
            assert f"tidegate_storage_full {shown}" in generate_latest(registry).decode()
    assert [log["event"] for log in logs] == [STORAGE_FULL, STORAGE_FREED]
    assert logs[0]["reason"] == "No room."
