"""An observer that counts and logs what a processor tells of itself."""

from dataclasses import dataclass

from typing_extensions import override

from tidegate.domain.batch import Batch
from tidegate.domain.errors import BlobMissing, CellDied, CellNotStarted, TidegateError
from tidegate.domain.usage import Usage
from tidegate.processor.observer import Observer
from tidegate.telemetry.logs import (
    BATCH_ENDED,
    BATCH_PLANNED,
    CELL_DIED,
    CELL_NOT_STARTED,
    CLAIM_LOST,
    ENDPOINT_PAUSED,
    ENDPOINT_RESUMED,
    INPUT_MISSING,
    LINE_BLAMED,
    PLAN_MISSING,
    PLANNING_DIED,
    PLANNING_QUARANTINED,
    SHARD_QUARANTINED,
    STORAGE_FREED,
    STORAGE_FULL,
    STORE_UNAVAILABLE,
    UPSTREAM_CRASHED,
    get_logger,
)
from tidegate.telemetry.metrics import ENDPOINTS_MAX, Metrics


@dataclass(slots=True)
class _Endpoint:
    limit: int = 0
    in_flight: int = 0
    paused: bool = False


class Counted(Observer):
    """Passes counts to the metrics at once, and what a person should know to the log of a room."""

    def __init__(self, metrics: Metrics, room: str) -> None:
        self._metrics = metrics
        self._log = get_logger(room)

    @override
    def attempts(self, endpoint: str, outcome: str, count: int) -> None:
        self._metrics.attempts(endpoint, outcome, count)

    @override
    def claimed(self, kind: str) -> None:
        self._metrics.claimed(kind)

    @override
    def claim_lost(self, kind: str) -> None:
        self._metrics.claim_lost(kind)
        self._log.warning(CLAIM_LOST, kind=kind)

    @override
    def lines_done(self, model: str, completed: int, failed: int, usage: Usage) -> None:
        self._metrics.lines_done(model, completed, failed, usage)

    @override
    def lines_repeated(self, count: int) -> None:
        self._metrics.lines_repeated(count)

    @override
    def commit(self, lines: int, seconds: float) -> None:
        self._metrics.commit(lines, seconds)

    @override
    def planned_alone(self, batch_id: str) -> None:
        self._log.warning(PLANNING_QUARANTINED, batch=batch_id)

    @override
    def planning_died(self, batch_id: str, place: str, death: CellDied) -> None:
        self._metrics.cell_died()
        self._log.warning(PLANNING_DIED, batch=batch_id, place=place, reason=str(death))

    @override
    def plan_missing(self, batch: Batch) -> None:
        self._log.error(PLAN_MISSING, batch=batch.id, blob=batch.plan_blob)

    @override
    def input_missing(self, batch: Batch, error: BlobMissing) -> None:
        self._log.error(INPUT_MISSING, batch=batch.id, file=batch.input_file_id, reason=str(error))

    @override
    def planned(self, batch: Batch, seconds: float) -> None:
        self._metrics.planned(seconds)
        if not batch.is_terminal:
            self._log.info(
                BATCH_PLANNED,
                batch=batch.id,
                lines=batch.counts.total,
                models=len(batch.models),
                seconds=round(seconds, 3),
            )

    @override
    def batch_ended(self, batch: Batch) -> None:
        self._metrics.batch_ended(batch.status.value)
        counts = batch.counts
        self._log.info(
            BATCH_ENDED,
            batch=batch.id,
            status=batch.status.value,
            completed=counts.completed,
            failed=counts.failed,
        )

    @override
    def held_up(self, error: TidegateError) -> None:
        self._log.warning(STORE_UNAVAILABLE, reason=str(error))

    @override
    def storage(self, reason: str | None) -> None:
        if reason is None:
            self._log.info(STORAGE_FREED)
        else:
            self._log.warning(STORAGE_FULL, reason=reason)

    @override
    def crashed(self, error: Exception) -> None:
        self._log.error(UPSTREAM_CRASHED, exc_info=error)

    @override
    def quarantined(self, batch_id: str, shard: int) -> None:
        self._log.warning(SHARD_QUARANTINED, batch=batch_id, shard=shard)

    @override
    def line_alone(self) -> None:
        self._metrics.line_quarantined()

    @override
    def cell_died(self, batch_id: str, line: int, death: CellDied) -> None:
        self._metrics.cell_died()
        self._log.warning(CELL_DIED, batch=batch_id, line=line, reason=str(death))

    @override
    def cell_not_started(self, error: CellNotStarted) -> None:
        self._log.warning(CELL_NOT_STARTED, reason=str(error))

    @override
    def line_blamed(self, batch_id: str, line: int) -> None:
        self._log.warning(LINE_BLAMED, batch=batch_id, line=line)


class Metered(Counted):
    """Keeps the latest state as well, for when metrics are read; one for each process."""

    def __init__(self, metrics: Metrics) -> None:
        super().__init__(metrics, "processor")
        self._endpoints: dict[str, _Endpoint] = {}
        self._open_shards = 0
        self._uncommitted = 0
        self._storage_full = False
        metrics.watch_storage(lambda: self._storage_full)
        self._in_quarantine = 0
        metrics.watch_quarantine(lambda: self._in_quarantine)
        metrics.watch_processor(
            open_shards=lambda: self._open_shards, uncommitted_lines=lambda: self._uncommitted
        )

    @override
    def storage(self, reason: str | None) -> None:
        self._storage_full = reason is not None
        super().storage(reason)

    @override
    def in_quarantine(self, shards: int) -> None:
        self._in_quarantine = shards

    @override
    def observe(self, *, in_flight: int, open_shards: int, uncommitted: int) -> None:
        self._open_shards = open_shards
        self._uncommitted = uncommitted

    @override
    def endpoint(self, name: str, *, limit: int, in_flight: int, reason: str | None) -> None:
        known = self._endpoints.get(name)
        if known is None:
            if len(self._endpoints) >= ENDPOINTS_MAX:
                return
            known = self._endpoints[name] = _Endpoint()
            self._watch(name, known)
        if reason is not None and not known.paused:
            self._log.warning(ENDPOINT_PAUSED, endpoint=name, reason=reason)
        if reason is None and known.paused:
            self._log.info(ENDPOINT_RESUMED, endpoint=name)
        known.limit, known.in_flight, known.paused = limit, in_flight, reason is not None

    def _watch(self, name: str, known: _Endpoint) -> None:
        self._metrics.watch_endpoint(
            name,
            in_flight=lambda: known.in_flight,
            limit=lambda: known.limit,
            is_paused=lambda: known.paused,
        )
