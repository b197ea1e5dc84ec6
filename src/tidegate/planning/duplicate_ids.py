"""Finds the custom_ids that occur twice in a file."""

from array import array
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec

from tidegate.sorting.external_sort import ExternalSorter
from tidegate.sorting.spill_file import OpenSpillFile, SpillFile

# Hashes are compared one bucket at a time, so that other tasks can run in between.
BUCKETS = 64
# Names are written to the spill file this many at a time.
NAMES_AT_ONCE = 1_024
_NUMBER_BYTES = 4

_Named = tuple[int, str]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Named]).decode


class DuplicateIdFinder:
    """Takes the name of each line, in order; eight bytes of each stay in memory.

    Usually all names have different hashes, so none is a duplicate. Only if two hashes are equal
    are all names sorted, which costs much more. `stack` closes the files that this opens.
    """

    def __init__(
        self, sorter: ExternalSorter, open_spill_file: OpenSpillFile, stack: ExitStack
    ) -> None:
        self._sorter = sorter
        self._spill = stack.enter_context(SpillFile(open_spill_file, "names"))
        self._hashes = [array("q") for _ in range(BUCKETS)]
        self._buffer: list[_Named] = []
        self._lengths: list[int] = []

    def add(self, number: int, name: str) -> None:
        """Add the name of a line.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        value = hash(name)
        self._hashes[value % BUCKETS].append(value)
        self._buffer.append((number, name))
        if len(self._buffer) >= NAMES_AT_ONCE:
            data = _encode(self._buffer)
            self._buffer = []
            self._lengths.append(len(data))
            self._spill.append(data)

    def suspects(self) -> Iterator[bool]:
        """Yield for one bucket after the other whether two of its names may be equal."""
        for bucket in self._hashes:
            yield len(set(bucket)) < len(bucket)

    def duplicates(self) -> Iterator[int | None]:
        """Yield the number of each line whose name an earlier one has, and None for every other.

        Not in the order of lines. Call it once, after the last `add`.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        for named in self._written():
            for number, name in named:
                self._sorter.add(name.encode(), number.to_bytes(_NUMBER_BYTES, "big"))
            yield None
        last = None
        for key, record in self._sorter.merged():
            yield int.from_bytes(record, "big") if key == last else None
            last = key

    def shrink(self) -> bool:
        """Free some scratch space; return False if none is left. No other method may follow."""
        return self._spill.shrink() or self._sorter.shrink()

    def _written(self) -> Iterator[list[_Named]]:
        offset = 0
        for length in self._lengths:
            yield _decode(self._spill.read(offset, length))
            offset += length
        yield self._buffer
