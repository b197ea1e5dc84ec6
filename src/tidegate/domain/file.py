"""A file is metadata plus an ordered list of parts; a part is a slice of a blob."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate


class Purpose(StrEnum):
    """What a file is for, in OpenAI's vocabulary."""

    ASSISTANTS = "assistants"  # Uploaded for another API; kept and served, never run.
    BATCH = "batch"  # The input of a batch.
    BATCH_OUTPUT = "batch_output"  # Results or errors that Tidegate wrote.
    FINE_TUNE = "fine-tune"  # Uploaded for another API.
    VISION = "vision"  # Uploaded for another API.
    USER_DATA = "user_data"  # Uploaded for another API.
    EVALS = "evals"  # Uploaded for another API.


UPLOAD_PURPOSES = tuple(purpose for purpose in Purpose if purpose is not Purpose.BATCH_OUTPUT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A slice of a blob: `length` bytes from `offset`."""

    blob: str
    offset: int
    length: int

    def __post_init__(self) -> None:
        assert self.offset >= 0, self
        assert self.length > 0, self


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One file as the ledger knows it. Times are Unix seconds; `bytes` is the sum of its parts.

    `batch_id` is set on a file that a batch writes. While `growing` it may only get longer, has no
    expiry and can't be deleted (PROTOCOL 12).
    """

    id: str
    tenant: str
    filename: str
    purpose: Purpose
    bytes: int
    created_at: float
    expires_at: float | None = None
    batch_id: str | None = None
    growing: bool = False


def merged(parts: Iterable[Part]) -> list[Part]:
    """Return the same bytes in the same order, with slices that touch inside one blob made one."""
    result: list[Part] = []
    for part in parts:
        if result and touches(result[-1], part):
            last = result[-1]
            result[-1] = replace(last, length=last.length + part.length)
        else:
            result.append(part)
    return result


def touches(first: Part, second: Part) -> bool:
    """Return whether `second` begins where `first` ends, in the same blob."""
    return first.blob == second.blob and first.offset + first.length == second.offset


def cut(parts: Sequence[Part], start: int, length: int) -> list[Part]:
    """Return the slices that hold bytes `start` to `start + length` of the file."""
    result: list[Part] = []
    position = 0
    end = start + length
    for part in parts:
        low = max(start, position)
        high = min(end, position + part.length)
        if low < high:
            result.append(
                Part(blob=part.blob, offset=part.offset + low - position, length=high - low)
            )
        position += part.length
        if position >= end:
            break
    return result


class Walk:
    """Takes the slices that hold bytes `start` to `start + length` of a file, some at a time.

    What is not taken costs nothing: a file may have thousands of parts.
    """

    def __init__(self, parts: Sequence[Part], start: int, length: int) -> None:
        ends = list(accumulate(part.length for part in parts))
        assert 0 <= start <= start + length <= (ends[-1] if ends else 0), (start, length)
        self._parts = parts
        self._left = length
        self._index = bisect_right(ends, start)
        self._skip = start - (ends[self._index - 1] if self._index else 0)

    def take(self, bytes_max: int, parts_max: int) -> list[Part]:
        """Return the next slices, as many bytes as asked for unless parts or bytes run out.

        Slices that touch are one; an empty list is the end.
        """
        assert min(bytes_max, parts_max) > 0, (bytes_max, parts_max)
        found: list[Part] = []
        room = bytes_max
        while self._left and room and len(found) < parts_max:
            part = self._parts[self._index]
            length = min(part.length - self._skip, room, self._left)
            if length < part.length:
                found.append(replace(part, offset=part.offset + self._skip, length=length))
            else:
                found.append(part)
            room -= length
            self._left -= length
            self._skip += length
            if self._skip == part.length:
                self._index += 1
                self._skip = 0
        return merged(found)


def total_length(parts: Iterable[Part]) -> int:
    """Return how many bytes these slices have together."""
    return sum(part.length for part in parts)
