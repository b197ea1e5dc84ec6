"""The metrics and log events of a processor.

Metrics that are counted with each line or commit keep their children in a dictionary, because a
lookup by label costs four times as much. Labels with values from outside are bounded: beyond
`MODELS_MAX` models and `ENDPOINTS_MAX` endpoints all others share the value `other`.
"""

import copy
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from tidegate.domain.batch import Batch
from tidegate.domain.errors import BlobMissing, SandboxDied, SandboxNotStarted, TidegateError
from tidegate.domain.usage import Usage
from tidegate.telemetry import logs

MODELS_MAX = 200
ENDPOINTS_MAX = 200
OTHER = "other"

_COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
_COMMIT_LINES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
_PLANNING_SECONDS = (0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300)
_ENDPOINT_STATE = (
    ("tidegate_in_flight", "Calls to a model server that are in flight."),
    ("tidegate_limit", "How many calls the adaptive limiter allows in flight."),
    ("tidegate_endpoint_backoff", "1 while an endpoint is in backoff after faults, else 0."),
)


class ProcessorMetrics:
    """Counts the events of a processor, keeps its state, and logs what operators should know.

    This is the `Observer` of the room `processor`. Every call is cheap, and never blocks or raises.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._log = logs.get_logger("processor")
        self._has_state = True
        self.is_storage_full = False
        self._declare_lines(registry)
        self._declare_endpoints(registry)
        self._declare_claims(registry)
        self._declare_commits(registry)

    def _declare_lines(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        self._lines = counter(
            "tidegate_lines_total",
            "Lines whose result was committed, by model and outcome (completed, failed).",
            ["model", "outcome"],
        )
        self._tokens = counter(
            "tidegate_tokens_total",
            "Tokens of committed lines (input, cached, output, reasoning); "
            "cached is a part of input, reasoning of output.",
            ["model", "direction"],
        )
        self._repeated = counter(
            "tidegate_repeated_lines_total",
            "Lines whose results were dropped because another process had taken over their shard.",
        )
        self._batches = counter(
            "tidegate_batches_total", "Batches that ended, by terminal status.", ["status"]
        )
        self._by_model: dict[str, tuple[Counter, ...]] = {}
        self._sandboxed = counter(
            "tidegate_quarantined_lines_total",
            "Lines that were sent one at a time through a child process.",
        )
        self._sandbox_deaths = counter(
            "tidegate_sandbox_deaths_total",
            "Child processes that died while they carried a line or planned a batch.",
        )

    def _declare_endpoints(self, registry: CollectorRegistry) -> None:
        self._attempts = Counter(
            "tidegate_attempts_total",
            "Calls to a model server, by outcome.",
            ["endpoint", "outcome"],
            registry=registry,
        )
        self._attempts_by: dict[tuple[str, str], Counter] = {}
        self._names: set[str] = set()
        self._endpoints = [
            Gauge(name, documentation, ["endpoint"], registry=registry)
            for name, documentation in _ENDPOINT_STATE
        ]
        self._states: dict[str, tuple[Gauge, ...]] = {}
        self._paused: set[str] = set()

    def _declare_claims(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        gauge = partial(Gauge, registry=registry)
        self._claims = counter(
            "tidegate_claims_total",
            "Units claimed by this process (planning, shard, finalizing).",
            ["kind"],
        )
        self._claims_lost = counter(
            "tidegate_claims_lost_total",
            "Units that another process took over from this one.",
            ["kind"],
        )
        self._open_shards = gauge("tidegate_open_shards", "Shards that this process holds.")
        self._planning_seconds = Histogram(
            "tidegate_planning_seconds",
            "Time that validating and planning one batch took.",
            buckets=_PLANNING_SECONDS,
            registry=registry,
        )
        self._quarantined_shards = gauge(
            "tidegate_quarantined_shards", "Open shards whose lines run one at a time."
        )

    def _declare_commits(self, registry: CollectorRegistry) -> None:
        histogram = partial(Histogram, registry=registry)
        self._commits = Counter(
            "tidegate_commits_total", "Commits of results to the ledger.", registry=registry
        )
        self._commit_seconds = histogram(
            "tidegate_commit_seconds",
            "Time that one commit took: its bytes, then its transaction.",
            buckets=_COMMIT_SECONDS,
        )
        self._commit_lines = histogram(
            "tidegate_commit_lines", "Lines in one commit.", buckets=_COMMIT_LINES
        )
        self._uncommitted = Gauge(
            "tidegate_uncommitted_lines",
            "Results that came back and are not yet committed.",
            registry=registry,
        )

    def logged_as(self, room: str) -> "ProcessorMetrics":
        """Return an observer that counts here, keeps no state, and logs as another room.

        It is for a second processor in the same process, which ends batches for the collector.
        """
        other = copy.copy(self)
        other._log = logs.get_logger(room)  # noqa: SLF001 -- a copy of this class
        other._has_state = False  # noqa: SLF001 -- as above
        return other

    # Lines

    def on_attempts(self, endpoint: str, outcome: str, count: int) -> None:
        """Count calls to a model server by outcome."""
        counter = self._attempts_by.get((endpoint, outcome))
        if counter is None:
            name = endpoint if self._is_known(endpoint) else OTHER
            counter = self._attempts.labels(name, outcome)
            self._attempts_by[name, outcome] = counter
        counter.inc(count)

    def on_lines_done(self, model: str, completed: int, failed: int, usage: Usage) -> None:
        """Count committed lines of one model, and their tokens."""
        amounts = (
            completed,
            failed,
            usage.input_tokens,
            usage.cached_tokens,
            usage.output_tokens,
            usage.reasoning_tokens,
        )
        for counter, amount in zip(self._of_model(model), amounts, strict=True):
            if amount:
                counter.inc(amount)

    def _of_model(self, model: str) -> tuple[Counter, ...]:
        children = self._by_model.get(model)
        if children is not None:
            return children
        if len(self._by_model) >= MODELS_MAX and model != OTHER:
            return self._of_model(OTHER)
        lines = (self._lines.labels(model, outcome) for outcome in ("completed", "failed"))
        tokens = (
            self._tokens.labels(model, direction)
            for direction in ("input", "cached", "output", "reasoning")
        )
        self._by_model[model] = (*lines, *tokens)
        return self._by_model[model]

    def on_lines_repeated(self, count: int) -> None:
        """Count lines whose results were dropped."""
        self._repeated.inc(count)

    def on_commit(self, lines: int, seconds: float) -> None:
        """Record one commit: its lines, and how long bytes and ledger took."""
        self._commits.inc()
        self._commit_seconds.observe(seconds)
        self._commit_lines.observe(lines)

    # Claims and batches

    def on_claim(self, kind: str) -> None:
        """Count a claim."""
        self._claims.labels(kind).inc()

    def on_claim_lost(self, kind: str) -> None:
        """Count and log a claim that another processor took over."""
        self._claims_lost.labels(kind).inc()
        self._log.warning(logs.CLAIM_LOST, kind=kind)

    def on_planned(self, batch: Batch, seconds: float) -> None:
        """Record how long validating and planning a batch took."""
        self._planning_seconds.observe(seconds)
        if not batch.is_terminal:
            self._log.info(
                logs.BATCH_PLANNED,
                batch=batch.id,
                lines=batch.counts.total,
                models=len(batch.models),
                seconds=round(seconds, 3),
            )

    def on_batch_ended(self, batch: Batch) -> None:
        """Count and log a batch that reached a terminal status."""
        self._batches.labels(batch.status.value).inc()
        counts = batch.counts
        self._log.info(
            logs.BATCH_ENDED,
            batch=batch.id,
            status=batch.status.value,
            completed=counts.completed,
            failed=counts.failed,
        )

    def on_plan_missing(self, batch: Batch) -> None:
        """Log a plan that can't be read."""
        self._log.error(logs.PLAN_MISSING, batch=batch.id, blob=batch.plan_blob)

    def on_input_missing(self, batch: Batch, error: BlobMissing) -> None:
        """Log an input that can't be read."""
        self._log.error(
            logs.INPUT_MISSING, batch=batch.id, file=batch.input_file_id, reason=str(error)
        )

    # Sandboxes

    def on_planning_sandboxed(self, batch_id: str) -> None:
        """Log a batch that is planned in a child process."""
        self._log.warning(logs.PLANNING_QUARANTINED, batch=batch_id)

    def on_planning_death(self, batch_id: str, place: str, death: SandboxDied) -> None:
        """Count and log a child process that died while it planned."""
        self._sandbox_deaths.inc()
        self._log.warning(logs.PLANNING_DIED, batch=batch_id, place=place, reason=str(death))

    def on_shard_quarantined(self, batch_id: str, shard: int) -> None:
        """Log a shard whose lines run one at a time."""
        self._log.warning(logs.SHARD_QUARANTINED, batch=batch_id, shard=shard)

    def on_line_sandboxed(self) -> None:
        """Count a line that was sent through a child process."""
        self._sandboxed.inc()

    def on_sandbox_death(self, batch_id: str, line: int, death: SandboxDied) -> None:
        """Count and log a child process that died of a line."""
        self._sandbox_deaths.inc()
        self._log.warning(logs.SANDBOX_DIED, batch=batch_id, line=line, reason=str(death))

    def on_sandbox_not_started(self, error: SandboxNotStarted) -> None:
        """Log a child process that could not be started."""
        self._log.warning(logs.SANDBOX_NOT_STARTED, reason=str(error))

    def on_poison_line(self, batch_id: str, line: int) -> None:
        """Log a line that failed because too many child processes died of it."""
        self._log.warning(logs.POISON_LINE_FAILED, batch=batch_id, line=line)

    # Errors

    def on_store_unavailable(self, error: TidegateError) -> None:
        """Log that the ledger did not answer."""
        self._log.warning(logs.STORE_UNAVAILABLE, reason=str(error))

    def on_disk_full(self, reason: str | None) -> None:
        """Log that there is no room to write, or room again."""
        if self._has_state:
            self.is_storage_full = reason is not None
        if reason is None:
            self._log.info(logs.STORAGE_FREED)
        else:
            self._log.warning(logs.STORAGE_FULL, reason=reason)

    def on_upstream_crash(self, error: Exception) -> None:
        """Log an error that no upstream should raise."""
        self._log.error(logs.UPSTREAM_CRASHED, exc_info=error)

    # State

    def on_load(self, *, in_flight: int, open_shards: int, uncommitted: int) -> None:  # noqa: ARG002 -- shown for each endpoint
        """Set the gauges of the load."""
        if self._has_state:
            self._open_shards.set(open_shards)
            self._uncommitted.set(uncommitted)

    def on_quarantine_size(self, shards: int) -> None:
        """Set the number of shards in quarantine."""
        if self._has_state:
            self._quarantined_shards.set(shards)

    def on_endpoint_state(
        self, name: str, *, limit: int, in_flight: int, reason: str | None
    ) -> None:
        """Set the state of an endpoint; log when it is paused or resumed."""
        if not (self._has_state and self._is_known(name)):
            return
        gauges = self._states.get(name)
        if gauges is None:
            gauges = self._states[name] = tuple(gauge.labels(name) for gauge in self._endpoints)
        is_paused = reason is not None
        for gauge, value in zip(gauges, (in_flight, limit, is_paused), strict=True):
            gauge.set(value)
        if is_paused and name not in self._paused:
            self._paused.add(name)
            self._log.warning(logs.ENDPOINT_BACKOFF_STARTED, endpoint=name, reason=reason)
        elif not is_paused and name in self._paused:
            self._paused.discard(name)
            self._log.info(logs.ENDPOINT_BACKOFF_ENDED, endpoint=name)

    def _is_known(self, endpoint: str) -> bool:
        if endpoint not in self._names:
            if len(self._names) >= ENDPOINTS_MAX:
                return False
            self._names.add(endpoint)
        return True
