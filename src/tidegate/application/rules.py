"""Rules of values that users send, with messages worded as OpenAI words them."""

import re
from collections.abc import Iterable

from tidegate.application.settings import EXPIRY_SECONDS_MAX, EXPIRY_SECONDS_MIN, Settings
from tidegate.domain.errors import Refused
from tidegate.wire.batch_request import ExpiresAfter

ECHO_CHARACTERS_MAX = 200
_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def could_be_id(text: str) -> bool:
    """Return whether any id of ours has this form; the ledger is not asked about others."""
    return _ID.fullmatch(text) is not None


def echo(text: str) -> str:
    """Return the text as a message may repeat it: cut, and free of control characters."""
    shown = text if len(text) <= ECHO_CHARACTERS_MAX else f"{text[:ECHO_CHARACTERS_MAX]}…"
    return "".join(letter if letter.isprintable() else "�" for letter in shown)


def unsupported(param: str, value: str, supported: Iterable[str]) -> Refused:
    """Return the error for a value outside a closed list."""
    listed = [f"'{item}'" for item in supported]
    text = " and ".join(filter(None, [", ".join(listed[:-1]), listed[-1]]))
    return Refused(
        f"Invalid value: '{echo(value)}'. Supported values are: {text}.",
        param=param,
        code="invalid_value",
    )


def check_range(param: str, value: int, *, low: int, high: int) -> None:
    """Check a whole number against its bounds, both included.

    Raises:
        Refused: it is outside.
    """
    if value < low:
        raise Refused(
            f"Invalid '{param}': integer below minimum value. "
            f"Expected a value >= {low}, but got {_number(value)} instead.",
            param=param,
            code="integer_below_min_value",
        )
    if value > high:
        raise Refused(
            f"Invalid '{param}': integer above maximum value. "
            f"Expected a value <= {high}, but got {_number(value)} instead.",
            param=param,
            code="integer_above_max_value",
        )


def check_length(param: str, text: str, characters_max: int) -> None:
    """Check how long a text is.

    Raises:
        Refused: it is too long, or holds a NUL, which no ledger keeps.
    """
    if len(text) > characters_max:
        raise Refused(
            f"Invalid '{param}': string too long. Expected a string with maximum length "
            f"{characters_max}, but got a string with length {len(text)} instead.",
            param=param,
            code="string_above_max_length",
        )
    if "\0" in text:
        raise Refused(
            f"Invalid '{param}': the character U+0000 is not allowed; leave it out.",
            param=param,
            code="invalid_value",
        )


def _number(value: int) -> str:
    # Python refuses to print integers of thousands of digits, and nobody wants to read them.
    return str(value) if abs(value) < 10**30 else "a far larger number"


ANCHOR = "created_at"


def expiry_seconds(param: str, expiry: ExpiresAfter) -> int:
    """Return the checked seconds from the file's creation to its end.

    Raises:
        Refused: the anchor is unknown, or the time is under an hour or over 30 days.
    """
    if expiry.anchor != ANCHOR:
        raise unsupported(f"{param}.anchor", expiry.anchor, [ANCHOR])
    check_range(f"{param}.seconds", expiry.seconds, low=EXPIRY_SECONDS_MIN, high=EXPIRY_SECONDS_MAX)
    return expiry.seconds


PAIRS_MAX = 16
KEY_CHARACTERS_MAX = 64
VALUE_CHARACTERS_MAX = 512


def check_metadata(metadata: dict[str, str]) -> None:
    """Check the number of pairs and the length of each, in characters.

    Raises:
        Refused: a bound is passed.
    """
    if len(metadata) > PAIRS_MAX:
        raise Refused(
            f"Invalid 'metadata': too many properties. Expected an object with at most {PAIRS_MAX} "
            f"properties, but got an object with {len(metadata)} properties instead.",
            param="metadata",
            code="object_above_max_properties",
        )
    for key, value in metadata.items():
        if len(key) > KEY_CHARACTERS_MAX or "\0" in key:
            raise Refused(
                f"Invalid 'metadata': property name '{echo(key)}' is not allowed. Expected a name "
                f"of at most {KEY_CHARACTERS_MAX} characters without U+0000.",
                param="metadata",
                code="string_above_max_length",
            )
        check_length(f"metadata.{key}", value, VALUE_CHARACTERS_MAX)


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
