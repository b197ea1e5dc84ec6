"""The metrics and log events of the collector."""

from collections.abc import Sequence
from functools import partial

from prometheus_client import CollectorRegistry, Counter, Gauge

from tidegate.domain.errors import StorageFull, TidegateError
from tidegate.telemetry import logs

UNKNOWN_LOGGED_MAX = 100


class CollectorMetrics:
    """Counts the events of a collector, and logs those that operators should know.

    This is the `Observer` of the room `collector`. Every call is cheap, and never blocks or raises.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        counter = partial(Counter, registry=registry)
        self._log = logs.get_logger("collector")
        self._unknown: set[str] = set()
        self._rounds = counter("tidegate_collector_rounds_total", "Rounds that the collector did.")
        self._files_released = counter(
            "tidegate_files_released_total", "Deleted or expired files whose bytes were released."
        )
        self._batches_dropped = counter(
            "tidegate_batches_dropped_total",
            "Ended batches that were removed after their retention.",
        )
        self._blobs_deleted = counter(
            "tidegate_blobs_deleted_total", "Blobs that the collector deleted."
        )
        self._bytes_deleted = counter("tidegate_bytes_deleted_total", "Bytes of these blobs.")
        self._compactions = counter(
            "tidegate_compactions_total", "Files that were rewritten in fewer parts."
        )
        self._lines_rerun = counter(
            "tidegate_rerun_lines_total",
            "Lines that run again because the bytes of their results were gone.",
        )
        self._drift = Gauge(
            "tidegate_drift_blobs",
            "Blobs that the last sweep found missing or too short, and could not repair.",
            registry=registry,
        )

    def on_files_released(self, files: int) -> None:
        """Count files whose bytes were released."""
        self._files_released.inc(files)

    def on_batches_removed(self, batches: int) -> None:
        """Count batches that were removed after their retention."""
        self._batches_dropped.inc(batches)

    def on_blobs_deleted(self, blobs: int, size: int) -> None:
        """Count deleted blobs and their bytes."""
        self._blobs_deleted.inc(blobs)
        self._bytes_deleted.inc(size)

    def on_file_compacted(self, file_id: str, before: int, after: int) -> None:
        """Count and log a file that consists of fewer parts now."""
        self._compactions.inc()
        self._log.info(logs.FILE_COMPACTED, file=file_id, parts_before=before, parts_after=after)

    def on_unknown_blob(self, name: str) -> None:
        """Log a blob of an unknown name only once, though every sweep finds it again."""
        if name not in self._unknown and len(self._unknown) < UNKNOWN_LOGGED_MAX:
            self._unknown.add(name)
            self._log.warning(logs.UNKNOWN_BLOB, blob=name)

    def on_blob_damaged(
        self, blob: str, *, needed: int, found: int | None, batches: tuple[str, ...]
    ) -> None:
        """Log a blob that holds too few bytes."""
        self._log.error(
            logs.BLOB_DAMAGED, blob=blob, bytes_needed=needed, bytes_found=found, batches=batches
        )

    def on_drift(self, blobs: int) -> None:
        """Show how many damages the last sweep could not repair."""
        self._drift.set(blobs)

    def on_lines_rerun(self, batch_id: str, lines: int) -> None:
        """Count and log lines that run again."""
        self._lines_rerun.inc(lines)
        self._log.warning(logs.LINES_RERUN, batch=batch_id, lines=lines)

    def on_batches_overdue(self, batch_ids: Sequence[str]) -> None:
        """Log batches that could not be ended."""
        self._log.warning(logs.BATCHES_OVERDUE, batches=list(batch_ids))

    def on_interrupted(self, error: TidegateError) -> None:
        """Log why a duty could not be finished."""
        event = logs.STORAGE_FULL if isinstance(error, StorageFull) else logs.STORE_UNAVAILABLE
        self._log.warning(event, reason=str(error))

    def on_round_done(self, *, files: int, batches: int, blobs: int, size: int) -> None:
        """Count a round, and log what it reclaimed."""
        self._rounds.inc()
        if files or batches or blobs:
            self._log.info(
                logs.SPACE_RECLAIMED, files=files, batches=batches, blobs=blobs, bytes=size
            )
