"""A regular expression as a tree of texts, characters and choices."""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import TypeAlias

CODE_MAX = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)

# Code points from the first to the last, both included.
Ranges = tuple[tuple[int, int], ...]

DIGITS: Ranges = ((0x30, 0x39),)
WORDS: Ranges = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
BLANKS: Ranges = ((0x09, 0x0D), (0x20, 0x20))
LINE_ENDS: Ranges = ((0x0A, 0x0A), (0x0D, 0x0D), (0x2028, 0x2029))

# What is taken where a class has it, the readable first.
_PREFERRED = (
    "".join(map(chr, [*range(0x61, 0x7B), *range(0x30, 0x3A), *range(0x41, 0x5B)])),
    "".join(map(chr, range(0x20, 0x7F))),
    "".join(map(chr, range(0xA1, 0x180))),
)


class Unreadable(ValueError):
    """A text is no expression, or says something that is not offered."""


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """These very characters, or none."""

    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Characters:
    """One character out of `pool`."""

    pool: str


@dataclass(frozen=True, slots=True, eq=False)
class Sequence:
    """One after the other."""

    items: tuple["Expression", ...]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """One of several; there is at least one."""

    options: tuple["Expression", ...]


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """The same several times: `low` or more, and `high` at most (None: as often as one likes)."""

    item: "Expression"
    low: int
    high: int | None


Expression: TypeAlias = Text | Characters | Sequence | Choice | Repeat


def in_a_row(items: Several[Expression]) -> Expression:
    """Return the expression of items one after the other."""
    return items[0] if len(items) == 1 else Sequence(tuple(items))


def one_of(options: Several[Expression]) -> Expression:
    """Return the expression of one of several options."""
    return options[0] if len(options) == 1 else Choice(tuple(options))


def others(ranges: Ranges) -> Ranges:
    """Return all code points that are not in these ranges, but for halves of pairs."""
    found: list[tuple[int, int]] = []
    following = 0
    for first, last in sorted((*ranges, _SURROGATES)):
        if first > following:
            found.append((following, first - 1))
        following = max(following, last + 1)
    if following <= CODE_MAX:
        found.append((following, CODE_MAX))
    return tuple(found)


def characters(ranges: Ranges) -> Characters:
    """Return one of these code points, of which the readable ones are taken where there are some.

    Raises:
        Unreadable: there is none.
    """
    for preferred in _PREFERRED:
        pool = "".join(
            [each for each in preferred if any(low <= ord(each) <= high for low, high in ranges)]
        )
        if pool:
            return Characters(pool)
    for first, last in others(others(ranges)):
        return Characters("".join(map(chr, range(first, min(last, first + 63) + 1))))
    raise Unreadable("a class has no character")
