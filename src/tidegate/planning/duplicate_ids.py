"""The custom_ids of a file, and which of them come twice."""

from array import array
from collections.abc import Iterator
from contextlib import ExitStack

import msgspec

from tidegate.sorting.external_sort import ExternalSorter
from tidegate.sorting.spill_file import OpenSpillFile, SpillFile

# Looked at one after the other, so that others have their turn in between.
BUCKETS = 64
# So many are written to scratch at a time.
NAMES_AT_ONCE = 1_024
_NUMBER_BYTES = 4

_Named = tuple[int, str]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[_Named]).decode


class DuplicateIdFinder:
    """Takes a name for each line, in their order; eight bytes of each stay in memory.

    As good as always no two names have one hash, so that none is a duplicate. Only where two have
    are all names sorted, which costs more than all the rest here. What it opens, `stack` closes.
    """

    def __init__(
        self, sorter: ExternalSorter, make_scratch: OpenSpillFile, stack: ExitStack
    ) -> None:
        self._sorter = sorter
        self._scratch = stack.enter_context(SpillFile(make_scratch, "names"))
        self._hashes = [array("q") for _ in range(BUCKETS)]
        self._held: list[_Named] = []
        self._lengths: list[int] = []

    def add(self, number: int, name: str) -> None:
        """Take the name of a line.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        value = hash(name)
        self._hashes[value % BUCKETS].append(value)
        self._held.append((number, name))
        if len(self._held) >= NAMES_AT_ONCE:
            data = _encode(self._held)
            self._held = []
            self._lengths.append(len(data))
            self._scratch.append(data)

    def suspects(self) -> Iterator[bool]:
        """Say of one bucket after the other whether two of its names may be the same."""
        for bucket in self._hashes:
            yield len(set(bucket)) < len(bucket)

    def duplicates(self) -> Iterator[int | None]:
        """Yield the number of each line whose name an earlier one has, and None for every other.

        They do not come in the order of lines. Call it once, after the last `add`.

        Raises:
            StorageFull: the scratch directory has no room.
        """
        for named in self._written():
            for number, name in named:
                self._sorter.add(name.encode(), number.to_bytes(_NUMBER_BYTES, "big"))
            yield None
        last = None
        for key, record in self._sorter.merged():
            yield int.from_bytes(record, "big") if key == last else None
            last = key

    def shrink(self) -> bool:
        """Give back some of the scratch space; call it last. False at its end."""
        return self._scratch.shrink() or self._sorter.shrink()

    def _written(self) -> Iterator[list[_Named]]:
        offset = 0
        for length in self._lengths:
            yield _decode(self._scratch.read(offset, length))
            offset += length
        yield self._held
