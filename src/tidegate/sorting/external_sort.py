"""Sorting more than fits in memory: sorted runs on scratch, then one merge."""

from collections.abc import Iterator, Sequence
from itertools import chain
from types import TracebackType
from typing import Self

from tidegate.sorting.sorted_runs import FileRun, MemoryRun, Pair, block_size, merged, write_run
from tidegate.sorting.spill_file import OpenSpillFile, SpillFile


class ExternalSorter:
    """Takes (key, record) pairs and gives them back ordered by key, then record.

    At most `run_bytes_max` bytes or `run_items_max` pairs are held at once; the rest lies on
    scratch. Use it with `with`.
    """

    def __init__(
        self, make_scratch: OpenSpillFile, *, run_bytes_max: int, run_items_max: int
    ) -> None:
        self._run_bytes_max = run_bytes_max
        self._run_items_max = run_items_max
        self._held: list[Pair] = []
        self._held_bytes = 0
        self._runs: list[FileRun] = []
        self._scratch = SpillFile(make_scratch, "sorting")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._held = []
        self._runs = []
        self._scratch.__exit__(kind, error, trace)

    def add(self, key: bytes, record: bytes) -> bool:
        """Take one pair; return True when that filled a run and wrote it out (a slow moment).

        Raises:
            StorageFull: the scratch directory has no room.
        """
        held = self._held
        held.append((key, record))
        self._held_bytes += len(key) + len(record)
        if len(held) < self._run_items_max and self._held_bytes < self._run_bytes_max:
            return False
        held.sort()
        self._runs.append(write_run(self._scratch, held))
        self._held = []
        self._held_bytes = 0
        return True

    def shrink(self) -> bool:
        """Give back some of the scratch space; nothing can be merged any more. False at its end."""
        return self._scratch.shrink()

    def merged(self) -> Iterator[Pair]:
        """Yield every pair in order. Call it once, after the last `add`."""
        return chain.from_iterable(self.sorted_blocks())

    def sorted_blocks(self) -> Iterator[Sequence[Pair]]:
        """Yield every pair in order, many at a time. Call it once, after the last `add`."""
        self._held.sort()
        return merged([*self._runs, MemoryRun(self._held)], block_size(len(self._runs)))
