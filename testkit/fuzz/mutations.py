"""Bytes that are nearly right: sound ones, cut, doubled and changed in a few places."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

EDITS_MAX = 4
CUTS_MAX = 12
FAR = 2**30


@dataclass(frozen=True, slots=True)
class Edit:
    """Replace `length` bytes at a place by others; places wrap around."""

    place: int
    length: int
    data: bytes

    def apply(self, data: bytes) -> bytes:
        """Return the changed bytes."""
        start = self.place % (len(data) + 1)
        return data[:start] + self.data + data[start + self.length :]


def edits(telling: Sequence[bytes]) -> SearchStrategy[list[Edit]]:
    """Make a few edits whose bytes are random, or among those that mean something."""
    data = st.sampled_from([b"", *telling]) | st.binary(max_size=4)
    edit = st.builds(Edit, st.integers(0, FAR), st.integers(0, 8), data)
    return st.lists(edit, max_size=EDITS_MAX)


def edited(data: bytes, changes: Sequence[Edit]) -> bytes:
    """Return the bytes after all edits."""
    for change in changes:
        data = change.apply(data)
    return data


CUTS = st.lists(st.integers(0, FAR), max_size=CUTS_MAX) | st.just([-1])


def cut(data: bytes, places: Sequence[int]) -> list[bytes]:
    """Return the bytes in pieces, none of them empty; `[-1]` makes a piece of every byte."""
    if list(places) == [-1]:
        return [data[index : index + 1] for index in range(len(data))]
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[low:high] for low, high in pairwise(edges)]
