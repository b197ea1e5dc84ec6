"""The parameters behind the question mark."""

import re

from starlette.datastructures import QueryParams

from tidegate.application.rules import unsupported
from tidegate.domain.file import Purpose
from tidegate.wire.batch_request import wrong_type

_INTEGER = re.compile(r"[+-]?[0-9]{1,30}")


def read_text(query: QueryParams, name: str) -> str | None:
    """Return a parameter; an empty one counts as absent."""
    return query.get(name) or None


def read_integer(query: QueryParams, name: str) -> int | None:
    """Return a whole number, or None where it is absent; refuse anything else."""
    text = read_text(query, name)
    if text is None:
        return None
    if not _INTEGER.fullmatch(text):
        raise wrong_type(name, "an integer", text)
    return int(text)


def read_ascending(query: QueryParams) -> bool:
    """Return whether `order` asks for the oldest first.

    Raises:
        Refused: it is neither `asc` nor `desc`.
    """
    text = read_text(query, "order") or "desc"
    if text not in {"asc", "desc"}:
        raise unsupported("order", text, ["asc", "desc"])
    return text == "asc"


def read_purpose(query: QueryParams) -> Purpose | None:
    """Return the purpose to filter by.

    Raises:
        Refused: there is no such purpose.
    """
    text = read_text(query, "purpose")
    if text is None:
        return None
    if text not in list(Purpose):
        raise unsupported("purpose", text, list(Purpose))
    return Purpose(text)
