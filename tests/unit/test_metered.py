"""What a processor tells is counted and logged, within bounds."""

from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from tidegate.processor.metered import Metered
from tidegate.telemetry.logs import ENDPOINT_PAUSED, ENDPOINT_RESUMED
from tidegate.telemetry.metrics import ENDPOINTS_MAX, OTHER, Metrics


def test_names_that_users_invent_do_not_grow_the_metrics() -> None:
    registry = CollectorRegistry()
    metered = Metered(Metrics(registry))
    for number in range(ENDPOINTS_MAX + 50):
        metered.attempt(f"gateway/{number}", "nobody")
        metered.endpoint(f"gateway/{number}", limit=1, in_flight=0, reason=None)
    text = generate_latest(registry).decode()
    counted = [line for line in text.splitlines() if line.startswith("tidegate_attempts_total{")]
    watched = [line for line in text.splitlines() if line.startswith("tidegate_limit{")]
    assert len(counted) == ENDPOINTS_MAX + 1
    assert f'tidegate_attempts_total{{endpoint="{OTHER}",outcome="nobody"}} 50.0' in counted
    assert len(watched) == ENDPOINTS_MAX


def test_a_pause_is_logged_when_it_begins_and_when_it_ends() -> None:
    with capture_logs() as logs:
        metered = Metered(Metrics(CollectorRegistry()))
        for reason in (None, "refused", "refused", None, None):
            metered.endpoint("e", limit=1, in_flight=0, reason=reason)
    assert [log["event"] for log in logs] == [ENDPOINT_PAUSED, ENDPOINT_RESUMED]
    assert logs[0]["reason"] == "refused"
