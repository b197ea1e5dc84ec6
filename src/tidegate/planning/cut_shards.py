"""The second pass over a batch file: records in their order, cut into what becomes shards."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from tidegate.planning.settings import Planning
from tidegate.planning.validate import MODEL_END, SLICE_LINES, InputValidation
from tidegate.sorting.record_file import length_of


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSlice:
    """The records of one shard to be: `lines` lines of one model, packed into `data`."""

    model: str
    lines: int
    data: bytes


async def cut_shards(scan: InputValidation, settings: Planning) -> AsyncGenerator[ShardSlice, None]:
    """Yield every record of a scan that was judged, in order; call it once.

    Raises:
        StorageFull: the scratch directory has no room.
    """
    lines_max, bytes_max = settings.shard_lines_max, settings.shard_bytes_max
    held: list[bytes] = []
    total, since = 0, 0
    start = b""
    for stretch in scan.lines.sorted_blocks():
        for key, place in stretch:
            length = length_of(place)
            if held and (
                len(held) >= lines_max or total + length > bytes_max or not key.startswith(start)
            ):
                yield await _slice(scan, start, held)
                held, total = [], 0
            if not held:
                start = key[: key.index(MODEL_END) + 1]
            held.append(place)
            total += length
        since += len(stretch)
        if since >= SLICE_LINES:
            since = 0
            await asyncio.sleep(0)
    if held:
        yield await _slice(scan, start, held)


async def _slice(scan: InputValidation, start: bytes, places: list[bytes]) -> ShardSlice:
    return ShardSlice(
        model=start.removesuffix(MODEL_END).decode(),
        lines=len(places),
        data=await scan.records.get_all(places),
    )
