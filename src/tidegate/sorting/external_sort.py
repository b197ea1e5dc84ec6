"""Sorts more than fits in memory: sorted runs in a spill file, then one merge."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Self

from tidegate.sorting.sorted_runs import FileRun, MemoryRun, Pair, block_size, merged, write_run
from tidegate.sorting.spill_file import OpenSpillFile, SpillFile


class ExternalSorter:
    """Takes (key, record) pairs and returns them ordered by key, then record.

    At most `run_bytes_max` bytes or `run_items_max` pairs are in memory; the rest is in a spill
    file. Use it with `with`.
    """

    def __init__(
        self, open_spill_file: OpenSpillFile, *, run_bytes_max: int, run_items_max: int
    ) -> None:
        self._run_bytes_max = run_bytes_max
        self._run_items_max = run_items_max
        self._buffer: list[Pair] = []
        self._buffer_bytes = 0
        self._runs: list[FileRun] = []
        self._spill = SpillFile(open_spill_file, "sorting")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._buffer = []
        self._runs = []
        self._spill.__exit__()

    def add(self, key: bytes, record: bytes) -> bool:
        """Add one pair; return True if this filled a run and wrote it, which is slow.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        buffer = self._buffer
        buffer.append((key, record))
        self._buffer_bytes += len(key) + len(record)
        if len(buffer) < self._run_items_max and self._buffer_bytes < self._run_bytes_max:
            return False
        buffer.sort()
        self._runs.append(write_run(self._spill, buffer))
        self._buffer = []
        self._buffer_bytes = 0
        return True

    def shrink(self) -> bool:
        """Free some scratch space; return False if none is left. Nothing can be merged any more."""
        return self._spill.shrink()

    def merged(self) -> Iterator[Pair]:
        """Yield every pair in order. Call it once, after the last `add`."""
        return chain.from_iterable(self.sorted_blocks())

    def sorted_blocks(self) -> Iterator[Sequence[Pair]]:
        """Yield every pair in order, many at a time. Call it once, after the last `add`."""
        self._buffer.sort()
        return merged([*self._runs, MemoryRun(self._buffer)], block_size(len(self._runs)))
