"""How long a batch may take: `24h`, or any other duration in days, hours, minutes and seconds."""

import re

from tidegate.desk.refusals import echo
from tidegate.desk.settings import Settings
from tidegate.domain.errors import Refused

_DURATION = re.compile(r"(?:([0-9]{1,9})d)?(?:([0-9]{1,9})h)?(?:([0-9]{1,9})m)?(?:([0-9]{1,9})s)?")
_UNITS = (86_400, 3_600, 60, 1)


def window_seconds(text: str, settings: Settings) -> int:
    """Return the seconds of a completion window such as `24h`, `90s`, `1h30m` or `7d`.

    Raises:
        Refused: it is no duration, or not between the bounds that the settings name.
    """
    seconds = _read(text)
    low, high = settings.window_seconds_min, settings.window_seconds_max
    if seconds is None or not low <= seconds <= high:
        raise Refused(
            f"Invalid value: '{echo(text)}'. The completion_window must be '24h' or another "
            f"duration from {_write(low)} to {_write(high)}, such as '30m', '1h30m' or '7d'.",
            param="completion_window",
            code="invalid_value",
        )
    return seconds


def _read(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    if match is None or not text:
        return None
    return sum(int(count or 0) * unit for count, unit in zip(match.groups(), _UNITS, strict=True))


def _write(seconds: int) -> str:
    for unit, name in zip(_UNITS, "dhms", strict=True):
        if seconds % unit == 0:
            return f"{seconds // unit}{name}"
    raise AssertionError(seconds)
