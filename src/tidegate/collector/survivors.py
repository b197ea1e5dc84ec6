"""Reads which lines of a batch's result files are left, and what they add to its counts."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidegate.blobs.base import BlobStore
from tidegate.domain.errors import BlobMissing, BlobUnreadable
from tidegate.domain.file import Part
from tidegate.domain.shard import Shard, Tally
from tidegate.wire.plan_format import unpack_all
from tidegate.wire.read_results import number_of, tally_of

READ_BYTES = 2**20
SLICE_LINES = 100


class Unclear(Exception):
    """It is not certain what is left; the message is the reason. Raised only inside this room."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a line in the batch: its shard, and its index there."""

    shard: int
    index: int
    custom_id: bytes


@dataclass(slots=True)
class _Slice:
    """What has been read of one part: `length` bytes of whole lines."""

    length: int = 0
    broken: bool = False
    places: list[Place] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)


async def read_places(blobs: BlobStore, plan: str, shards: Sequence[Shard]) -> dict[int, Place]:
    """Return the place of each line of a batch by its number.

    Raises:
        Unclear: the plan can't be read.
    """
    found: dict[int, Place] = {}
    for shard in shards:
        plan_slice = shard.plan
        try:
            data = await blobs.read(plan, plan_slice.offset, plan_slice.length)
        except BlobMissing as error:
            raise Unclear("its plan can't be read") from error
        for index, line in enumerate(unpack_all(data)):
            found[line.number] = Place(plan_slice.number, index, line.custom_id)
        await asyncio.sleep(0)
    return found


class Survivors:
    """Reads the remaining lines. A second call reads only what was added meanwhile."""

    def __init__(self, blobs: BlobStore, places: Mapping[int, Place]) -> None:
        self._blobs = blobs
        self._places = places
        self._slices: dict[tuple[str, int], _Slice] = {}

    async def read(
        self, parts: Sequence[Part], *, is_error: bool
    ) -> tuple[list[Part], list[Place], Tally]:
        """Return what is left of these parts, cut after their last whole line, and the lines.

        Raises:
            Unclear: a line does not belong to the batch, or existing bytes can't be read.
        """
        left: list[Part] = []
        places: list[Place] = []
        tally = Tally()
        for part in parts:
            piece = await self._slice(part, is_error=is_error)
            if piece.length:
                left.append(replace(part, length=piece.length))
            places += piece.places
            tally += piece.tally
        return left, places, tally

    async def _slice(self, part: Part, *, is_error: bool) -> _Slice:
        piece = self._slices.setdefault((part.blob, part.offset), _Slice())
        tail = b""
        while not piece.broken and piece.length + len(tail) < part.length:
            start = piece.length + len(tail)
            try:
                data = await self._read(part, start)
            except BlobUnreadable as error:
                raise Unclear("existing results can't be read") from error
            except BlobMissing:
                piece.broken = True
                return piece
            lines = (tail + data).split(b"\n")
            tail = lines.pop()
            await self._take(piece, lines, is_error=is_error)
        return piece

    async def _read(self, part: Part, start: int) -> bytes:
        have = await self._blobs.length(part.blob) - part.offset
        size = min(READ_BYTES, part.length - start, have - start)
        if size <= 0:
            raise BlobMissing(f"Blob '{part.blob}' ends early.")
        return await self._blobs.read(part.blob, part.offset + start, size)

    async def _take(self, piece: _Slice, lines: Sequence[bytes], *, is_error: bool) -> None:
        for count, line in enumerate(lines, 1):
            place = self._places.get(number_of(line) or 0)
            tally = None if place is None else tally_of(line, place.custom_id, is_error=is_error)
            if place is None or tally is None:
                raise Unclear("a result belongs to none of its lines")
            piece.places.append(place)
            piece.tally += tally
            piece.length += len(line) + 1
            if count % SLICE_LINES == 0:
                await asyncio.sleep(0)
