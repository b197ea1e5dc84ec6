"""Whose fault is it, and when is the next try?"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from mypy_extensions import mypyc_attr

from tidegate.domain.errors import SettingsInvalid


class AttemptOutcome(StrEnum):
    """What became of one call to a model server for one line; a metric label."""

    OK = "ok"  # The reply is the line's result.
    LINE_ERROR = "line_error"  # The request may be at fault: it has a limited number of attempts.
    ENDPOINT_ERROR = "endpoint_error"  # The server can't serve now; the line loses nothing.
    UNKNOWN = "unknown"  # Broken or late: the line's fault only if the endpoint serves others.
    CANCELLED = "cancelled"  # Cut off before it was answered; the line may be sent again.
    STALE = "stale"  # Another processor holds the shard by now: what came back is dropped.
    SANDBOX_DIED = "sandbox_died"  # The child process that carried the line died.


# A member by a name of its own, for what is asked with each line: the interpreter finds a member of
# an enumeration, and its value, by code in Python.
OK: Final = AttemptOutcome.OK

_OVERLOADED = frozenset({429, 503, 529})
_ENDPOINT = frozenset({401, 403, 407, 502, 504}) | _OVERLOADED
_LINE = frozenset({408, 425})
_OK_MIN: Final = 200
_REDIRECT_MIN: Final = 300
_REDIRECT = range(_REDIRECT_MIN, 400)
_SERVER = range(500, 600)


def outcome_of_status(status: int) -> AttemptOutcome:
    """Return the outcome of a reply, judged by its status alone.

    A redirect counts as the endpoint's: none is followed, and the address is wrong for every line.
    """
    if is_success(status):
        return AttemptOutcome.OK
    if status in _ENDPOINT or status in _REDIRECT:
        return AttemptOutcome.ENDPOINT_ERROR
    if status in _LINE or status in _SERVER:
        return AttemptOutcome.LINE_ERROR
    return AttemptOutcome.OK


def is_success(status: int) -> bool:
    """Return whether the request was served."""
    return _OK_MIN <= status < _REDIRECT_MIN


def is_overload(status: int) -> bool:
    """Return whether the status asks for less work rather than for other work."""
    return status in _OVERLOADED


@mypyc_attr(native_class=False)  # the settings build it from what it says of itself
@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how late to try again. `unsure_max` bounds the tries that cost no attempt."""

    attempts_max: int = 5
    unsure_max: int = 20
    delay_seconds_min: float = 0.5
    delay_seconds_max: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts_max < 1 or self.unsure_max < self.attempts_max:
            raise SettingsInvalid(
                "retry.attempts_max must be at least 1 and retry.unsure_max no smaller than it."
            )
        if not 0 < self.delay_seconds_min <= self.delay_seconds_max:
            raise SettingsInvalid(
                "retry.delay_seconds_min must be above 0 and at most retry.delay_seconds_max."
            )

    def delay(self, failures: int, chance: float) -> float:
        """Return seconds to wait after `failures` failures in a row (from 1).

        The bound doubles with each failure; `chance` (0 to 1, drawn by the caller) picks from its
        upper half, so that lines that failed together do not come back together.
        """
        assert failures >= 1, failures
        assert 0.0 <= chance <= 1.0, chance
        bound = min(self.delay_seconds_max, self.delay_seconds_min * 2.0 ** min(failures - 1, 32))
        return bound * (0.5 + 0.5 * chance)
