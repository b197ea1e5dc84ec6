"""Ranges and entity tags: which bytes of a file a request asks for."""

import re
from dataclasses import dataclass

_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,4000})\s*-\s*([0-9]{0,4000})\s*", re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """`length` bytes from `start`."""

    start: int
    length: int


def read_range(header: str | None, size: int) -> Slice | None:
    """Return the bytes that a Range header asks for in a file of `size` bytes.

    None means the whole file: there is no header, it is malformed, or it asks for several ranges,
    which a server may pass over. A slice of length 0 means that nothing of the range exists.
    """
    match = None if header is None else _RANGE.fullmatch(header)
    if match is None:
        return None
    first, last = match.groups()
    if first:
        start = int(first)
        end = int(last) + 1 if last else size
        if last and end <= start:
            return None
    elif last:
        start = max(0, size - int(last))
        end = size
    else:
        return None
    return Slice(start=min(start, size), length=max(0, min(end, size) - start))


def matches(header: str | None, tag: str) -> bool:
    """Say whether an If-None-Match header names this tag; weak and strong count alike."""
    if header is None:
        return False
    return header.strip() == "*" or tag in _TAG.findall(header)


def permits(header: str | None, tag: str) -> bool:
    """Say whether an If-Match header permits an answer: it is absent, `*`, or names this very tag.

    A weak tag never does, as it promises no equal bytes.
    """
    if header is None or header.strip() == "*":
        return True
    return tag in [item.strip() for item in header.split(",")]


def allows_range(header: str | None, tag: str) -> bool:
    """Say whether an If-Range header permits a part: it is absent, or names this very tag.

    A date never does, as files carry none.
    """
    return header is None or header.strip() == tag
