"""What an examination finds."""

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How grave a finding is."""

    OK = "ok"  # As it should be.
    WARN = "warn"  # It works, and deserves a look.
    FAIL = "fail"  # It does not work.


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. `advice` says what to do; it is empty where all is well."""

    area: str
    level: Level
    message: str
    advice: str = ""

    def __post_init__(self) -> None:
        assert (self.level is Level.OK) == (not self.advice), self


def ok(area: str, message: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(area=area, level=Level.OK, message=message)


def warn(area: str, message: str, advice: str) -> Finding:
    """Return a finding that deserves a look."""
    return Finding(area=area, level=Level.WARN, message=message, advice=advice)


def fail(area: str, message: str, advice: str) -> Finding:
    """Return a finding that something does not work."""
    return Finding(area=area, level=Level.FAIL, message=message, advice=advice)
