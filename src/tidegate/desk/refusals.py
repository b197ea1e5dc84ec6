"""Refusals that several rules share, worded as OpenAI words them."""

import re
from collections.abc import Iterable

from tidegate.domain.errors import Refused

ECHO_CHARACTERS_MAX = 200
_ID = re.compile(r"[A-Za-z0-9_.-]{1,128}")


def could_be_id(text: str) -> bool:
    """Say whether any id of ours could be written so; the ledger is not asked about others."""
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
