"""Records in a spill file: written once, and read by their place in any order."""

import struct
from collections.abc import Iterator, Sequence
from typing import Self

from tidegate.sorting.spill_file import OpenSpillFile, SpillFile

BUFFER_BYTES = 2**18

_PLACE = struct.Struct(">QI")


class RecordFile:
    """Keeps only the last records in memory, until they are written. Use it with `with`."""

    def __init__(self, open_spill_file: OpenSpillFile) -> None:
        """Open the file now, so that an error comes before all the work.

        Raises:
            StorageFull: there is no room for it.
        """
        self._spill = SpillFile(open_spill_file, "lines")
        self._spill.open()
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._buffer = []
        self._spill.__exit__()

    def add(self, *pieces: bytes) -> bytes:
        """Add a record in pieces; return its place. Places sort in the order of records.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        length = sum(map(len, pieces))
        place = _PLACE.pack(self._end, length)
        self._end += length
        self._buffer += pieces
        self._buffered += length
        if self._buffered >= BUFFER_BYTES:
            self._flush()
        return place

    def get(self, place: bytes) -> bytes:
        """Return one record.

        Raises:
            StorageFull: there is no room for the records still in memory.
        """
        return self.get_all([place])

    def get_all(self, places: Sequence[bytes]) -> bytes:
        """Return records one after the other; neighbours in the file are read together.

        Raises:
            StorageFull: there is no room for the records still in memory.
        """
        self._flush()
        found = b"".join(self._spill.read_all(_ranges(places)))
        assert len(found) == sum(map(length_of, places)), "the spill file lost bytes"
        return found

    def shrink(self) -> bool:
        """Free some scratch space; return False if none is left. No record can be read any more."""
        self._buffer = []
        return self._spill.shrink()

    def _flush(self) -> None:
        if self._buffer:
            data = b"".join(self._buffer)
            self._buffer = []
            self._buffered = 0
            self._spill.append(data)


def _ranges(places: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield the ranges to read; neighbouring records are one range."""
    start = end = 0
    for offset, length in _PLACE.iter_unpack(b"".join(places)):
        if offset != end:
            if end > start:
                yield start, end - start
            start = offset
        end = offset + length
    yield start, end - start


def length_of(place: bytes) -> int:
    """Return the length of the record at a place; a place may have further bytes."""
    return int.from_bytes(place[8:12], "big")
