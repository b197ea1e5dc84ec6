"""Keeps the records of lines between the first pass over a file and the writing of the plan."""

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

# Bytes between two wanted ranges are read with them up to this size: a read costs about as much as
# skipping that many bytes, and the memory of all gaps stays bounded.
GAP_BYTES_MAX = 1_024
READ_BYTES_MAX = 2**20


class RecordStore(ABC):
    """Keeps the plan record of each line, and finds it by its place.

    A place is a few bytes; `length_of` returns the length of its record.
    """

    @abstractmethod
    def keep(self, line: Line, raw: bytes, offset: int) -> bytes:
        """Add a valid line, and the bytes `raw` that it was read from; return its place.

        `offset` is the place of these bytes in the file.

        Raises:
            StorageFull: the scratch directory has no room.
        """

    @abstractmethod
    async def get_all(self, places: Sequence[bytes]) -> bytes:
        """Return the records of these places one after the other.

        Raises:
            StorageFull: there is no room for buffered records, or no file descriptor left.
            BlobMissing: the bytes of the input can't be read.
        """

    @abstractmethod
    def shrink(self) -> bool:
        """Free some scratch space; return False if none is left. No record can be read any more."""


class SpilledRecords(RecordStore):
    """Writes each record to a spill file: for input that can't be read again."""

    def __init__(self, open_spill_file: OpenSpillFile, stack: ExitStack) -> None:
        self._records = stack.enter_context(RecordFile(open_spill_file))

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


# Offset of the body, length of the record, offset and length of the custom_id, number of the line.
_PLACE = struct.Struct(">QIQII")


class SourceRecords(RecordStore):
    """Keeps the offsets of each line in the file, and reads it there again: nothing is written."""

    def __init__(self, source: InputFile) -> None:
        self._source = source

    @override
    def keep(self, line: Line, raw: bytes, offset: int) -> bytes:
        custom_id, body = line.custom_id, line.body
        at = len(raw) - len(body) - 1
        if not raw.startswith(body, at):
            # The body is not the last member. Any earlier occurrence of its bytes is as good.
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
        """Return the bytes of many ranges; ranges close to each other are read together."""
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
