"""The second pass over a batch file: cuts the sorted records into shards."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from tidegate.planning.settings import Planning
from tidegate.planning.validate import MODEL_END, SLICE_LINES, InputValidation
from tidegate.sorting.record_file import length_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSlice:
    """The records of one future shard: `lines` lines of one model, packed into `data`."""

    model: str
    lines: int
    data: bytes


async def cut_shards(
    validation: InputValidation, settings: Planning
) -> AsyncGenerator[ShardSlice, None]:
    """Yield every record of a scan that was judged, in order; call it once.

    Raises:
        StorageFull: the scratch directory has no room.
    """
    lines_max, bytes_max = settings.shard_lines_max, settings.shard_bytes_max
    places: list[bytes] = []
    total, since = 0, 0
    prefix = b""
    for block in validation.lines.sorted_blocks():
        for key, place in block:
            length = length_of(place)
            if places and (
                len(places) >= lines_max or total + length > bytes_max or not key.startswith(prefix)
            ):
                yield await _slice(validation, prefix, places)
                places, total = [], 0
            if not places:
                prefix = key[: key.index(MODEL_END) + 1]
            places.append(place)
            total += length
        since += len(block)
        if since >= SLICE_LINES:
            since = 0
            await asyncio.sleep(0)
    if places:
        yield await _slice(validation, prefix, places)


async def _slice(validation: InputValidation, prefix: bytes, places: list[bytes]) -> ShardSlice:
    return ShardSlice(
        model=prefix.removesuffix(MODEL_END).decode(),
        lines=len(places),
        data=await validation.records.get_all(places),
    )
