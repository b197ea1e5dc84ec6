"""Numbers that are drawn from texts: the same text, the same numbers, in every process."""

import math
from hashlib import blake2b
from statistics import NormalDist

LENGTH_SPREAD = 0.7
_LENGTHS = 256
# Equally likely lengths, in thousandths of the median: a log-normal law cut into equal parts.
_PER_MILLE = [
    round(1000 * math.exp(LENGTH_SPREAD * NormalDist().inv_cdf((place + 0.5) / _LENGTHS)))
    for place in range(_LENGTHS)
]


def digest(*parts: bytes | str | int) -> int:
    """Return the number of 64 bits that decides everything about these parts."""
    hashed = blake2b(digest_size=8)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode("utf-8", "surrogatepass")
        hashed.update(b"%d:" % len(data))
        hashed.update(data)
    return int.from_bytes(hashed.digest(), "big")


def usual_length(number: int, median: int) -> int:
    """Return how many tokens an answer has that nothing bounds, chosen by a number."""
    return max(1, median * _PER_MILLE[number % _LENGTHS] // 1000)


class SeededChoices:
    """A sequence of numbers from one number."""

    __slots__ = ("_state",)

    def __init__(self, number: int) -> None:
        self._state = digest(number)

    def roll(self, sides: int) -> int:
        """Return a number from 0 to `sides` - 1."""
        assert sides > 0, sides
        self._state += 1
        return digest(self._state) % sides

    def between(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included."""
        return low + self.roll(high - low + 1)
