"""The second pass over a batch file: records in their order, cut into what becomes shards."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from tidegate.processor.scan import SLICE_LINES, Scan
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
    cutter = _Cutter(settings)
    for index, (key, place) in enumerate(scan.lines.merged()):
        full = cutter.add(key.partition(b"\0")[0].decode(), scan.records.get(place))
        if full is not None:
            yield full
        if index % SLICE_LINES == 0:
            await asyncio.sleep(0)
    last = cutter.cut()
    if last is not None:
        yield last


class _Cutter:
    """Gathers records, and notices where a slice has to end."""

    def __init__(self, settings: Planning) -> None:
        self._settings = settings
        self._model = ""
        self._held: list[bytes] = []
        self._length = 0

    def add(self, model: str, record: bytes) -> Slice | None:
        """Take the next record; return the slice that has to end before it."""
        full = (
            len(self._held) >= self._settings.shard_lines_max
            or self._length + len(record) > self._settings.shard_bytes_max
        )
        ended = self.cut() if full or model != self._model else None
        self._model = model
        self._held.append(record)
        self._length += len(record)
        return ended

    def cut(self) -> Slice | None:
        """Return what is held as a slice, and begin anew; None where nothing is."""
        if not self._held:
            return None
        ended = Slice(model=self._model, lines=len(self._held), data=b"".join(self._held))
        self._held = []
        self._length = 0
        return ended
