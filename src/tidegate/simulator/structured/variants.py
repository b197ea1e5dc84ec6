"""Answers that are work to make: a request gets a few different ones, and then those again."""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
VARIANTS_MAX = 64
WORK_MAX = 200_000


def varied(make: Callable[[int], tuple[T, int]]) -> Callable[[int], T]:
    """Return what makes a value from a number, of which only this many differ.

    Nobody needs thousands of different choices in one request, and who asks for them should not
    keep the server from its other work.

    Args:
        make: returns a value for a number, and how much work it was.
    """
    made: dict[int, T] = {}
    work = 0

    def vary(number: int) -> T:
        nonlocal work
        if number not in made:
            if len(made) >= VARIANTS_MAX or (made and work >= WORK_MAX):
                return list(made.values())[number % len(made)]
            made[number], took = make(number)
            work += took
        return made[number]

    return vary
