"""Ids for simulations and tests, which must repeat."""

import random


class SeededIds:
    """Ids from a seeded generator: for simulations and tests that must replay."""

    def __init__(self, source: random.Random) -> None:
        self._source = source

    def make(self, prefix: str) -> str:
        """Return `prefix` followed by 32 hexadecimal digits."""
        return f"{prefix}{self._source.getrandbits(128):032x}"
