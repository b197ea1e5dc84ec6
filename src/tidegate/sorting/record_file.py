"""Records on scratch: written once, and read back by their place in any order."""

import struct
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from tidegate.sorting.spill_file import OpenSpillFile, SpillFile

BUFFER_BYTES = 2**18

_PLACE = struct.Struct(">QI")


class RecordFile:
    """Only places are kept in memory, and what was not written yet. Use it with `with`."""

    def __init__(self, make_scratch: OpenSpillFile) -> None:
        """Open scratch at once: who can't, should hear of it before all the work.

        Raises:
            StorageFull: there is no room for it.
        """
        self._scratch = SpillFile(make_scratch, "lines")
        self._scratch.open()
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._buffer = []
        self._scratch.__exit__(kind, error, trace)

    def add(self, *pieces: bytes) -> bytes:
        """Take a record in pieces; return its place, which sorts as the records came.

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
            StorageFull: the last ones, still in memory, found no room.
        """
        return self.get_all([place])

    def get_all(self, places: Sequence[bytes]) -> bytes:
        """Return records one after the other; neighbours on scratch are read at once.

        Raises:
            StorageFull: the last ones, still in memory, found no room.
        """
        self._flush()
        found = b"".join(self._scratch.read_all(_stretches(places)))
        assert len(found) == sum(map(length_of, places)), "scratch lost bytes"
        return found

    def shrink(self) -> bool:
        """Give back some of the scratch space; no record can be read any more. False at its end."""
        self._buffer = []
        return self._scratch.shrink()

    def _flush(self) -> None:
        if self._buffer:
            data = b"".join(self._buffer)
            self._buffer = []
            self._buffered = 0
            self._scratch.append(data)


def _stretches(places: Sequence[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where to read, with what lies together as one."""
    start = end = 0
    for offset, length in _PLACE.iter_unpack(b"".join(places)):
        if offset != end:
            if end > start:
                yield start, end - start
            start = offset
        end = offset + length
    yield start, end - start


def length_of(place: bytes) -> int:
    """Return how many bytes the record at a place has; what follows in a place is not looked at."""
    return int.from_bytes(place[8:12], "big")
