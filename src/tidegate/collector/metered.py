"""An observer that counts and logs what a collector tells of itself."""

from collections.abc import Sequence

from typing_extensions import override

from tidegate.collector.observer import Observer
from tidegate.collector.report import Damage, Report
from tidegate.domain.errors import StorageFull, TidegateError
from tidegate.telemetry.collector_metrics import CollectorMetrics
from tidegate.telemetry.logs import (
    BATCHES_OVERDUE,
    BLOB_DAMAGED,
    BLOB_STRANGE,
    FILE_COMPACTED,
    LINES_RERUN,
    SPACE_RECLAIMED,
    STORAGE_FULL,
    STORE_UNAVAILABLE,
    get_logger,
)

STRANGERS_LOGGED_MAX = 100


class Metered(Observer):
    """Passes counts to the metrics at once; what a person should know is logged."""

    def __init__(self, metrics: CollectorMetrics) -> None:
        self._metrics = metrics
        self._log = get_logger("collector")
        self._strangers: set[str] = set()

    @override
    def released(self, files: int, size: int) -> None:
        self._metrics.files_released.inc(files)

    @override
    def dropped(self, batches: int) -> None:
        self._metrics.batches_dropped.inc(batches)

    @override
    def deleted(self, blobs: int, size: int) -> None:
        self._metrics.blobs_deleted.inc(blobs)
        self._metrics.bytes_deleted.inc(size)

    @override
    def compacted(self, file_id: str, before: int, after: int) -> None:
        self._metrics.compactions.inc()
        self._log.info(FILE_COMPACTED, file=file_id, parts_before=before, parts_after=after)

    @override
    def strange(self, name: str) -> None:
        # Each is told once: it will lie there on every sweep.
        if name not in self._strangers and len(self._strangers) < STRANGERS_LOGGED_MAX:
            self._strangers.add(name)
            self._log.warning(BLOB_STRANGE, blob=name)

    @override
    def damaged(self, damage: Damage) -> None:
        self._log.error(
            BLOB_DAMAGED,
            blob=damage.blob,
            bytes_needed=damage.needed,
            bytes_found=damage.found,
            batches=damage.batches,
        )

    @override
    def drift(self, blobs: int) -> None:
        self._metrics.drift.set(blobs)

    @override
    def mended(self, batch_id: str, lines: int) -> None:
        self._metrics.lines_rerun.inc(lines)
        self._log.warning(LINES_RERUN, batch=batch_id, lines=lines)

    @override
    def overdue(self, batch_ids: Sequence[str]) -> None:
        self._log.warning(BATCHES_OVERDUE, batches=list(batch_ids))

    @override
    def held_up(self, error: TidegateError) -> None:
        event = STORAGE_FULL if isinstance(error, StorageFull) else STORE_UNAVAILABLE
        self._log.warning(event, reason=str(error))

    @override
    def round_done(self, report: Report) -> None:
        self._metrics.rounds.inc()
        if report.files_released or report.batches_dropped or report.blobs_deleted:
            self._log.info(
                SPACE_RECLAIMED,
                files=report.files_released,
                batches=report.batches_dropped,
                blobs=report.blobs_deleted,
                bytes=report.bytes_deleted,
            )
