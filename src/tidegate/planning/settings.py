"""Every bound of validation and planning, each with its name."""

from dataclasses import dataclass
from enum import StrEnum

from tidegate.domain.errors import SettingsInvalid


class UnknownModel(StrEnum):
    """What happens to a line whose model no upstream serves."""

    REJECT_LINE = "reject_line"  # The line gets the error `model_not_found`, the others run.
    REJECT_BATCH = "reject_batch"  # The batch fails its validation.


def require_above_zero(group: str, settings: object, *names: str) -> None:
    """Raise SettingsInvalid if one of these settings of a group is not above 0."""
    for name in names:
        value = getattr(settings, name)
        if value <= 0:
            raise SettingsInvalid(f"{group}.{name} must be above 0, not {value}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Planning:
    """Bounds of validation and planning. A shard is cut at `shard_lines_max` or `shard_bytes_max`.

    `run_bytes_max` and `run_lines_max` bound one sorted run in memory.
    """

    lines_max: int = 50_000
    models_max: int = 1_000
    line_bytes_max: int = 8 * 2**20
    errors_max: int = 100
    shard_lines_max: int = 500
    shard_bytes_max: int = 4 * 2**20
    run_bytes_max: int = 2 * 2**20
    run_lines_max: int = 2_048
    unknown_model: UnknownModel = UnknownModel.REJECT_LINE

    def __post_init__(self) -> None:
        require_above_zero(
            "planning",
            self,
            "lines_max",
            "models_max",
            "line_bytes_max",
            "errors_max",
            "shard_lines_max",
            "shard_bytes_max",
            "run_bytes_max",
            "run_lines_max",
        )
