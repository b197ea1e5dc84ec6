"""The second pass over a batch file: records in their order, cut into what becomes shards."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from tidegate.processor.records import length_of
from tidegate.processor.scan import MODEL_END, SLICE_LINES, Scan
from tidegate.processor.settings import Planning


@dataclass(frozen=True, slots=True, kw_only=True)
class Slice:
    """The records of one shard to be: `lines` lines of one model, packed into `data`."""

    model: str
    lines: int
    data: bytes


async def slices(scan: Scan, settings: Planning) -> AsyncGenerator[Slice, None]:
    """Yield every record of a scan that was judged, in order; call it once.

    Raises:
        StorageFull: the scratch directory has no room.
    """
    cutter = _Cutter(scan, settings)
    for index, (key, place) in enumerate(scan.lines.merged()):
        full = cutter.add(key, place)
        if full is not None:
            yield full
        if index % SLICE_LINES == 0:
            await asyncio.sleep(0)
    last = cutter.cut()
    if last is not None:
        yield last


class _Cutter:
    """Gathers places of records, and notices where a slice has to end."""

    def __init__(self, scan: Scan, settings: Planning) -> None:
        self._scan = scan
        self._lines_max = settings.shard_lines_max
        self._bytes_max = settings.shard_bytes_max
        self._start = b""
        self._held: list[bytes] = []
        self._length = 0

    def add(self, key: bytes, place: bytes) -> Slice | None:
        """Take the next record; return the slice that has to end before it."""
        length = length_of(place)
        ended = None
        if (
            len(self._held) >= self._lines_max
            or self._length + length > self._bytes_max
            or not key.startswith(self._start)
        ):
            ended = self.cut()
        if not self._held:
            self._start = key[: key.index(MODEL_END) + 1]
        self._held.append(place)
        self._length += length
        return ended

    def cut(self) -> Slice | None:
        """Return what is held as a slice, and begin anew; None where nothing is."""
        if not self._held:
            return None
        ended = Slice(
            model=self._start.removesuffix(MODEL_END).decode(),
            lines=len(self._held),
            data=self._scan.records.get_all(self._held),
        )
        self._held = []
        self._length = 0
        return ended
