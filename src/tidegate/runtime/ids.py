"""Ids as a port, so that a simulation can reproduce them."""

import uuid
from typing import Protocol


class IdMaker(Protocol):
    """Makes ids that can't be guessed."""

    def make(self, prefix: str) -> str:
        """Return `prefix` followed by 128 fresh random bits as 32 hexadecimal digits."""


class RandomIds:
    """Ids from the operating system's randomness."""

    def make(self, prefix: str) -> str:
        """Return `prefix` followed by 32 hexadecimal digits."""
        return prefix + uuid.uuid4().hex
