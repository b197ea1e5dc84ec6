"""Sorting more than fits in memory: sorted runs on scratch, then one merge (Knuth, 5.4)."""

import heapq
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import BinaryIO, Self

from tidegate.domain.errors import StorageFull

_HEAD = struct.Struct(">II")
_PLACE = struct.Struct(">QI")

ScratchMaker = Callable[[], BinaryIO]


class ExternalSorter:
    """Takes (key, record) pairs and gives them back ordered by key, then record.

    At most `run_bytes_max` bytes or `run_items_max` pairs are held at once; the rest lies in files
    that `make_scratch` opens and that vanish when they are closed. Use it with `with`.
    """

    def __init__(
        self, make_scratch: ScratchMaker, *, run_bytes_max: int, run_items_max: int
    ) -> None:
        self._make_scratch = make_scratch
        self._run_bytes_max = run_bytes_max
        self._run_items_max = run_items_max
        self._held: list[tuple[bytes, bytes]] = []
        self._held_bytes = 0
        self._runs: list[BinaryIO] = []
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held = []
        # What is thrown away may find no room for what it still meant to write.
        with suppress(OSError):
            self._stack.close()

    def add(self, key: bytes, record: bytes) -> bool:
        """Take one pair; return True when that filled a run and wrote it out (a slow moment)."""
        self._held.append((key, record))
        self._held_bytes += len(key) + len(record)
        full = len(self._held) >= self._run_items_max or self._held_bytes >= self._run_bytes_max
        if full:
            self._spill()
        return full

    def merged(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every pair in order. Call it once, after the last `add`."""
        self._held.sort()
        runs = [_read(run) for run in self._runs]
        return heapq.merge(*runs, iter(self._held))

    def _spill(self) -> None:
        self._held.sort()
        with _room("sorting"):
            run = self._stack.enter_context(self._make_scratch())
            for key, record in self._held:
                run.write(_HEAD.pack(len(key), len(record)))
                run.write(key)
                run.write(record)
            run.flush()
        self._runs.append(run)
        self._held = []
        self._held_bytes = 0


class Records:
    """Records on scratch, written once and read back one by one: only their place is kept."""

    def __init__(self, make_scratch: ScratchMaker) -> None:
        """Open scratch.

        Raises:
            StorageFull: there is no room for it.
        """
        with _room("lines"):
            self._file = make_scratch()
        self._end = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with suppress(OSError):
            self._file.close()

    def add(self, record: bytes) -> bytes:
        """Write a record; return its place, which sorts as the records were written.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        with _room("lines"):
            self._file.write(record)
        place = _PLACE.pack(self._end, len(record))
        self._end += len(record)
        return place

    def get(self, place: bytes) -> bytes:
        """Read a record back.

        Raises:
            StorageFull: the last ones written, still in memory, found no room.
        """
        offset, length = _PLACE.unpack(place)
        with _room("lines"):
            self._file.seek(offset)
            record = self._file.read(length)
        assert len(record) == length, "scratch lost bytes"
        return record


@contextmanager
def _room(purpose: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageFull(f"No room for {purpose} in the scratch directory: {error}.") from error


def _read(run: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    run.seek(0)
    while head := run.read(_HEAD.size):
        key_length, record_length = _HEAD.unpack(head)
        yield run.read(key_length), run.read(record_length)
