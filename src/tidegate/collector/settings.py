"""When the collector works, and how long it keeps unneeded data."""

from dataclasses import dataclass

from tidegate.domain.errors import SettingsInvalid

COMPACT_PARTS_LEAST = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The rules of the collector. Times are seconds.

    A round starts every `interval_seconds`; one in `sweep_seconds` also compares all blobs with the
    ledger. Ended batches are removed after `retention_seconds`. Bytes that a file no longer needs
    are kept for `download_seconds_max`, for downloads under way. An upload that is not finished
    after `upload_seconds_max` is abandoned. A file of at least `compact_parts_min` parts is
    rewritten, in blobs of at most `compact_bytes_max`.
    """

    enabled: bool = True
    interval_seconds: float = 60.0
    sweep_seconds: float = 3_600.0
    retention_seconds: float = 30 * 86_400.0
    download_seconds_max: float = 3_600.0
    upload_seconds_max: float = 86_400.0
    compact_parts_min: int = 1_000
    compact_bytes_max: int = 64 * 2**20

    def __post_init__(self) -> None:
        for name in (
            "interval_seconds",
            "sweep_seconds",
            "upload_seconds_max",
            "compact_bytes_max",
        ):
            if getattr(self, name) <= 0:
                raise SettingsInvalid(
                    f"collector.{name} must be above 0, not {getattr(self, name)}."
                )
        for name in ("retention_seconds", "download_seconds_max"):
            if getattr(self, name) < 0:
                raise SettingsInvalid(
                    f"collector.{name} must be 0 or more, not {getattr(self, name)}."
                )
        if self.sweep_seconds < self.interval_seconds:
            raise SettingsInvalid(
                "collector.sweep_seconds must be at least collector.interval_seconds."
            )
        if self.compact_parts_min < COMPACT_PARTS_LEAST:
            raise SettingsInvalid(
                f"collector.compact_parts_min must be at least {COMPACT_PARTS_LEAST}, "
                f"not {self.compact_parts_min}."
            )
