"""Sorted runs of pairs in a spill file, merged block by block (Knuth, volume 3, 5.4)."""

import heapq
import struct
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from typing_extensions import override

from tidegate.sorting.spill_file import SpillFile

Pair = tuple[bytes, bytes]

# Bounds of the blocks of all runs together during a merge, so that one step takes about 2 ms. A
# single block is never smaller than its own bound, or than one pair.
MERGE_BYTES_MAX = 2 * 2**20
MERGE_PAIRS_MAX = 2**11
BLOCK_BYTES_MIN = 2**12
BLOCK_BYTES_MAX = 2**18
BLOCK_PAIRS_MIN = 2**4

# Pairs are written this many at a time, because joining them copies them once more.
PAIRS_AT_ONCE = 256
_HEAD = struct.Struct(">II")


def write_run(spill: SpillFile, pairs: Sequence[Pair]) -> "FileRun":
    """Append sorted pairs to the spill file; return their run.

    Raises:
        StorageFull: the scratch directory has no room.
    """
    start, head = spill.length, _HEAD.pack
    for first in range(0, len(pairs), PAIRS_AT_ONCE):
        pieces = [
            piece
            for key, record in pairs[first : first + PAIRS_AT_ONCE]
            for piece in (head(len(key), len(record)), key, record)
        ]
        spill.append(b"".join(pieces))
    return FileRun(spill, start, spill.length - start, len(pairs))


@dataclass(frozen=True, slots=True)
class BlockSize:
    """How much of a run is read at a time: a number of bytes, and about a number of pairs."""

    bytes: int
    pairs: int


class MemoryRun:
    """A run in memory.

    Attributes:
        block: the next pairs, in order; empty only after the last one.
    """

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.block = pairs

    def begin(self, size: BlockSize) -> None:
        """Read the first block, of about that size if there are several."""

    def take(self, last: Pair) -> Sequence[Pair]:
        """Remove and return the pairs up to `last`; read the next block if none are left.

        Raises:
            StorageFull: there is no room for bytes still in memory.
        """
        block = self.block
        if block[-1] <= last:
            self._fill()
            return block
        cut = bisect_right(block, last)
        self.block = block[cut:]
        return block[:cut]

    def _fill(self) -> None:
        self.block = []


class FileRun(MemoryRun):
    """A run in a spill file, of which one block at a time is in memory."""

    def __init__(self, spill: SpillFile, offset: int, length: int, pairs: int) -> None:
        super().__init__([])
        self._pair_bytes = -(-length // pairs)
        self._spill = spill
        self._offset = offset
        self._end = offset + length
        self._block_bytes = BLOCK_BYTES_MAX

    @override
    def begin(self, size: BlockSize) -> None:
        self._block_bytes = min(size.bytes, size.pairs * self._pair_bytes)
        self._fill()

    @override
    def _fill(self) -> None:
        data = self._read(self._block_bytes)
        if data:
            # A pair larger than a block is read alone.
            first = _HEAD.size + sum(_HEAD.unpack_from(data))
            data = data if len(data) >= first else self._read(first)
        self.block = pairs = _pairs(data)
        self._offset += sum(_HEAD.size + len(key) + len(record) for key, record in pairs)

    def _read(self, length: int) -> bytes:
        return self._spill.read(self._offset, min(length, self._end - self._offset))


def block_size(runs: int) -> BlockSize:
    """Return how large each block may be when this number of runs is merged."""
    share = MERGE_BYTES_MAX // max(runs, 1)
    return BlockSize(
        bytes=min(max(share, BLOCK_BYTES_MIN), BLOCK_BYTES_MAX),
        pairs=max(MERGE_PAIRS_MAX // max(runs, 1), BLOCK_PAIRS_MIN),
    )


def merged(runs: Sequence[MemoryRun], size: BlockSize) -> Iterator[Sequence[Pair]]:
    """Yield the pairs of all runs in order, many at a time, reading blocks of about that size.

    Whole blocks are sorted at a time, which is much cheaper than a heap of single pairs.
    """
    waiting: list[tuple[Pair, int]] = []
    for index, run in enumerate(runs):
        run.begin(size)
        if run.block:
            waiting.append((run.block[0], index))
    heapq.heapify(waiting)
    while waiting:
        _, index = heapq.heappop(waiting)
        found = [index]
        last = runs[index].block[-1]
        # A run that begins after `last` holds no pair that belongs before it.
        while waiting and waiting[0][0] <= last:
            _, index = heapq.heappop(waiting)
            found.append(index)
            last = min(last, runs[index].block[-1])
        yield _merge_block([runs[index] for index in found], last)
        for index in found:
            if runs[index].block:
                heapq.heappush(waiting, (runs[index].block[0], index))


def _merge_block(runs: Sequence[MemoryRun], last: Pair) -> Sequence[Pair]:
    if len(runs) == 1:
        return runs[0].take(last)
    found = [pair for run in runs for pair in run.take(last)]
    found.sort()
    return found


def _pairs(data: bytes) -> list[Pair]:
    found: list[Pair] = []
    add, heads, size = found.append, _HEAD.unpack_from, _HEAD.size
    position, end = 0, len(data) - size
    while position <= end:
        key_length, record_length = heads(data, position)
        middle = position + size + key_length
        after = middle + record_length
        if after > len(data):
            break
        add((data[position + size : middle], data[middle:after]))
        position = after
    return found
