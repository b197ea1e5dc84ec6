"""Where the records of lines wait between the first pass over a file and their turn in the plan."""

import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack

from typing_extensions import override

from tidegate.planning.input_file import InputFile
from tidegate.sorting.record_file import RecordFile
from tidegate.sorting.spill_file import OpenSpillFile
from tidegate.wire.lines import Line
from tidegate.wire.plan_format import HEAD_BYTES, pack_head, pack_heads

# What lies between two things that are wanted is read with them where it is no more than that: a
# read costs as much as to pass over so many bytes, and the memory of all gaps is bounded.
GAP_BYTES_MAX = 1_024
READ_BYTES_MAX = 2**20


class RecordStore(ABC):
    """Keeps what the plan will say of each line, and finds it again by its place.

    A place is a few bytes; `length_of` reads from it how long the record is.
    """

    @abstractmethod
    def keep(self, line: Line, raw: bytes, offset: int) -> bytes:
        """Take a sound line, and the bytes that it was read from; return its place.

        `offset` is where these bytes lie in the file.

        Raises:
            StorageFull: the scratch directory has no room.
        """

    @abstractmethod
    async def get_all(self, places: Sequence[bytes]) -> bytes:
        """Return the records of these places one after the other.

        Raises:
            StorageFull: scratch found no room for the last ones, or there is no descriptor left.
            BlobMissing: the bytes of the input can't be read.
        """

    @abstractmethod
    def shrink(self) -> bool:
        """Give back some scratch space; no record can be read any more. False at its end."""


class SpilledRecords(RecordStore):
    """Writes each record to scratch: for lines that can't be read again from where they came."""

    def __init__(self, make_scratch: OpenSpillFile, stack: ExitStack) -> None:
        self._records = stack.enter_context(RecordFile(make_scratch))

    @override
    def keep(self, line: Line, raw: bytes, offset: int) -> bytes:
        head = pack_head(line.number, line.custom_id, line.body)
        return self._records.add(head, line.custom_id, line.body)

    @override
    async def get_all(self, places: Sequence[bytes]) -> bytes:
        return self._records.get_all(places)

    @override
    def shrink(self) -> bool:
        return self._records.shrink()


# Where the body lies, how long the record is, where the custom_id lies and how long it is, and the
# number of the line.
_PLACE = struct.Struct(">QIQII")


class SourceRecords(RecordStore):
    """Notes where each line lies in the file, and reads it there again: nothing is written."""

    def __init__(self, source: InputFile) -> None:
        self._source = source

    @override
    def keep(self, line: Line, raw: bytes, offset: int) -> bytes:
        custom_id, body = line.custom_id, line.body
        at = len(raw) - len(body) - 1
        if not raw.startswith(body, at):
            # Something comes behind it. Wherever else the same bytes stand, they are the same.
            at = raw.index(body)
        return _PLACE.pack(
            offset + at,
            HEAD_BYTES + len(custom_id) + len(body),
            offset + raw.index(custom_id),
            len(custom_id),
            line.number,
        )

    @override
    async def get_all(self, places: Sequence[bytes]) -> bytes:
        heads: list[tuple[int, int, int]] = []
        wanted: list[tuple[int, int]] = []
        for body_at, length, id_at, id_length, number in _PLACE.iter_unpack(b"".join(places)):
            body_length = length - HEAD_BYTES - id_length
            heads.append((number, id_length, body_length))
            wanted.append((id_at, id_length))
            wanted.append((body_at, body_length))
        texts = await self._texts(wanted)
        pieces = [b""] * (3 * len(heads))
        pieces[0::3] = pack_heads(heads)
        pieces[1::3] = texts[0::2]
        pieces[2::3] = texts[1::2]
        return b"".join(pieces)

    async def _texts(self, wanted: Sequence[tuple[int, int]]) -> list[bytes]:
        """Return the bytes of many places; what lies close together is read at once."""
        ranges: list[tuple[int, int]] = []
        found: list[tuple[int, int, int]] = []
        start = end = wanted[0][0]
        for at, length in wanted:
            if not 0 <= at - end <= GAP_BYTES_MAX or at + length - start > READ_BYTES_MAX:
                if end > start:
                    ranges.append((start, end - start))
                start = at
            end = at + length
            found.append((len(ranges), at - start, end - start))
        ranges.append((start, end - start))
        read = await self._source.read(ranges)
        assert [len(data) for data in read] == [length for _, length in ranges]
        return [read[index][first:last] for index, first, last in found]

    @override
    def shrink(self) -> bool:
        return False
