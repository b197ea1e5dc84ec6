"""The metrics of the collector."""

from prometheus_client import CollectorRegistry, Counter, Gauge


class CollectorMetrics:
    """What was cleaned up by this process, and what was found to be wrong."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.rounds = Counter(
            "tidegate_collector_rounds_total", "Rounds that the collector did.", registry=registry
        )
        self.files_released = Counter(
            "tidegate_files_released_total",
            "Deleted or expired files whose bytes were let go.",
            registry=registry,
        )
        self.batches_dropped = Counter(
            "tidegate_batches_dropped_total",
            "Ended batches that were removed after their retention.",
            registry=registry,
        )
        self.blobs_deleted = Counter(
            "tidegate_blobs_deleted_total", "Blobs that the collector deleted.", registry=registry
        )
        self.bytes_deleted = Counter(
            "tidegate_bytes_deleted_total", "Bytes of these blobs.", registry=registry
        )
        self.compactions = Counter(
            "tidegate_compactions_total",
            "Files that were written anew in fewer parts.",
            registry=registry,
        )
        self.lines_rerun = Counter(
            "tidegate_rerun_lines_total",
            "Lines that run again because the bytes of their results were gone.",
            registry=registry,
        )
        self.drift = Gauge(
            "tidegate_drift_blobs",
            "Blobs that the last sweep found missing or too short, and could not mend.",
            registry=registry,
        )
