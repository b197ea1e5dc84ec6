"""What users may do, and how much of it."""

import re
from dataclasses import dataclass

from tidegate.domain.errors import SettingsInvalid

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
EXPIRY_SECONDS_MIN = 3_600
EXPIRY_SECONDS_MAX = 2_592_000
_ENDPOINT = re.compile(r"/v1(/[a-z0-9_-]+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The rules of files and batches.

    `file_bytes_max` bounds an uploaded batch input, `other_file_bytes_max` any other upload.
    An input without `expires_after` goes after `batch_file_expiry_seconds`; the results of a batch
    go `output_expiry_seconds` after its end (None keeps either for good). `early_results` shows
    results while the batch still runs.
    """

    extra_endpoints: tuple[str, ...] = ()
    file_bytes_max: int = 209_715_200
    other_file_bytes_max: int = 536_870_912
    batch_file_expiry_seconds: int | None = EXPIRY_SECONDS_MAX
    output_expiry_seconds: int | None = EXPIRY_SECONDS_MAX
    window_seconds_min: int = 60
    window_seconds_max: int = 14 * 86_400
    early_results: bool = True

    def __post_init__(self) -> None:
        for endpoint in self.extra_endpoints:
            if not _ENDPOINT.fullmatch(endpoint):
                raise SettingsInvalid(
                    f"batch_api.extra_endpoints has '{endpoint}': write a path like '/v1/rerank'."
                )
        if min(self.file_bytes_max, self.other_file_bytes_max) < 1:
            raise SettingsInvalid(
                "batch_api.file_bytes_max and batch_api.other_file_bytes_max must be at least 1."
            )
        for name, seconds in (
            ("batch_file_expiry_seconds", self.batch_file_expiry_seconds),
            ("output_expiry_seconds", self.output_expiry_seconds),
        ):
            if seconds is not None and seconds < 1:
                raise SettingsInvalid(
                    f"batch_api.{name} must be at least 1, or null for no expiry."
                )
        if not 1 <= self.window_seconds_min <= self.window_seconds_max:
            raise SettingsInvalid(
                "batch_api.window_seconds_min must be between 1 and batch_api.window_seconds_max."
            )

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Every endpoint that a batch may name, without repeats."""
        return tuple(dict.fromkeys(ENDPOINTS + self.extra_endpoints))
