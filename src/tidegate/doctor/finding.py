"""The result of a check."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """The severity of a finding."""

    OK = "ok"  # As it should be.
    WARN = "warn"  # It works, but needs attention.
    FAIL = "fail"  # It does not work.


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of one check. `advice` says what to do; it is empty at level OK."""

    area: str
    level: Level
    message: str
    advice: str = ""

    def __post_init__(self) -> None:
        assert (self.level is Level.OK) == (not self.advice), self


def ok(area: str, message: str) -> Finding:
    """Return a finding of level OK."""
    return Finding(area=area, level=Level.OK, message=message)


def warn(area: str, message: str, advice: str) -> Finding:
    """Return a finding of level WARN."""
    return Finding(area=area, level=Level.WARN, message=message, advice=advice)


def fail(area: str, message: str, advice: str) -> Finding:
    """Return a finding of level FAIL."""
    return Finding(area=area, level=Level.FAIL, message=message, advice=advice)
