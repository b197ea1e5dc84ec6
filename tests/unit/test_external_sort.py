import io
import random
import tempfile
from itertools import chain
from typing import BinaryIO, ClassVar

import pytest
from hypothesis import given, strategies as st
from typing_extensions import Buffer, override

from tidegate.domain.errors import StorageFull
from tidegate.sorting import sorted_runs
from tidegate.sorting.external_sort import ExternalSorter
from tidegate.sorting.record_file import BUFFER_BYTES, RecordFile
from tidegate.sorting.spill_file import FREED_AT_ONCE, OpenSpillFile, SpillFile

PAIRS = st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), max_size=60)


@given(pairs=PAIRS, items=st.integers(1, 20), size=st.integers(1, 60))
def test_it_equals_a_sort_in_memory(
    pairs: list[tuple[bytes, bytes]], items: int, size: int
) -> None:
    with ExternalSorter(io.BytesIO, run_bytes_max=size, run_items_max=items) as sorter:
        for key, record in pairs:
            sorter.add(key, record)
            assert len(sorter._buffer) < items, "a run grew past its bound"
        assert list(sorter.merged()) == sorted(pairs)


@given(
    pairs=st.lists(st.tuples(st.binary(max_size=40), st.binary(max_size=40)), max_size=80),
    items=st.integers(1, 20),
    block=st.integers(8, 60),
    most=st.integers(1, 5),
)
def test_blocks_of_any_size_are_merged_alike(
    pairs: list[tuple[bytes, bytes]], items: int, block: int, most: int
) -> None:
    with SpillFile(io.BytesIO, "sorting") as scratch:
        cut = [sorted(pairs[at : at + items]) for at in range(0, len(pairs), items)]
        found = [sorted_runs.write_run(scratch, part) for part in cut]
        size = sorted_runs.BlockSize(bytes=block, pairs=most)
        assert list(chain.from_iterable(sorted_runs.merged(found, size))) == sorted(pairs)


def test_a_block_holds_no_more_than_it_may_but_one_pair_at_least() -> None:
    pairs = [(b"a", b"x" * 91), (b"b", b"x" * 90), (b"c", b"x" * 200), (b"d", b"")]
    with SpillFile(io.BytesIO, "sorting") as scratch:
        run = sorted_runs.write_run(scratch, pairs)
        run.begin(sorted_runs.BlockSize(bytes=199, pairs=9))
        assert run.take(pairs[0]) == pairs[:1]
        assert run.take(pairs[1]) == pairs[1:2]
        assert run.take(pairs[2]) == pairs[2:3]
        assert run.take(pairs[3]) == pairs[3:]
        assert run.block == []
    with SpillFile(io.BytesIO, "sorting") as scratch:
        run = sorted_runs.write_run(scratch, pairs)
        run.begin(sorted_runs.BlockSize(bytes=99, pairs=9))
        assert run.block == pairs[:1]


def test_a_run_is_written_in_pieces() -> None:
    written: list[int] = []

    class Noting(SpillFile):
        @override
        def append(self, data: bytes) -> None:
            written.append(len(data))
            super().append(data)

    pair = (b"k", b"record")
    size = 8 + len(pair[0]) + len(pair[1])
    with Noting(io.BytesIO, "sorting") as scratch:
        sorted_runs.write_run(scratch, [pair] * sorted_runs.PAIRS_AT_ONCE)
        assert written == [size * sorted_runs.PAIRS_AT_ONCE]
        sorted_runs.write_run(scratch, [pair] * (sorted_runs.PAIRS_AT_ONCE + 1))
        assert written[1:] == [size * sorted_runs.PAIRS_AT_ONCE, size]


def test_a_block_holds_about_the_expected_number_of_pairs() -> None:
    pairs = [(b"%04d" % number, b"") for number in range(1_000)]
    with SpillFile(io.BytesIO, "sorting") as scratch:
        run = sorted_runs.write_run(scratch, pairs)
        run.begin(sorted_runs.BlockSize(bytes=2**20, pairs=50))
        assert run.block == pairs[:50]
        assert run.take(pairs[49]) == pairs[:50]
        assert run.block == pairs[50:100]


def test_many_runs_share_what_may_be_held_at_once() -> None:
    most = sorted_runs.MERGE_BYTES_MAX // sorted_runs.BLOCK_BYTES_MAX
    largest = sorted_runs.BLOCK_BYTES_MAX
    assert [sorted_runs.block_size(count).bytes for count in (0, most, 2 * most)] == [
        largest, largest, largest // 2,
    ]  # fmt: skip
    least = sorted_runs.MERGE_BYTES_MAX // sorted_runs.BLOCK_BYTES_MIN
    assert {sorted_runs.block_size(count).bytes for count in (least, least + 1)} == {
        sorted_runs.BLOCK_BYTES_MIN
    }
    assert sorted_runs.block_size(1).pairs == sorted_runs.MERGE_PAIRS_MAX
    least = sorted_runs.MERGE_PAIRS_MAX // sorted_runs.BLOCK_PAIRS_MIN
    assert {sorted_runs.block_size(count).pairs for count in (least, least + 1)} == {
        sorted_runs.BLOCK_PAIRS_MIN
    }


@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=30),
    chance=st.randoms(use_true_random=False),
)
def test_records_are_read_back_in_any_order(sizes: list[int], chance: random.Random) -> None:
    with RecordFile(io.BytesIO) as records:
        written = [
            (records.add(b"%d" % number, b"x" * size), b"%d" % number + b"x" * size)
            for number, size in enumerate(sizes)
        ]
        assert [place for place, _ in written] == sorted(place for place, _ in written)
        assert records.get_all([place for place, _ in written]) == b"".join(
            data for _, data in written
        )
        chance.shuffle(written)
        assert records.get_all([place for place, _ in written]) == b"".join(
            data for _, data in written
        )


def test_neighbours_are_read_at_once_and_a_buffer_is_written_when_it_is_full() -> None:
    class Noting(io.BytesIO):
        writes: ClassVar[list[int]] = []
        reads: ClassVar[list[int | None]] = []

        @override
        def write(self, data: Buffer) -> int:
            self.writes.append(len(memoryview(data)))
            return super().write(data)

        @override
        def read(self, size: int | None = -1) -> bytes:
            self.reads.append(size)
            return super().read(size)

    with RecordFile(Noting) as records:
        half = b"x" * (BUFFER_BYTES // 2)
        places = [records.add(half[1:])]
        places.append(records.add(half))
        assert Noting.writes == []
        places.append(records.add(b"y"))
        assert Noting.writes == [BUFFER_BYTES]
        assert len(records.get_all(places)) == BUFFER_BYTES
        records.get_all([places[0], places[2]])
    assert Noting.reads == [BUFFER_BYTES, BUFFER_BYTES // 2 - 1, 1]


def unbuffered() -> BinaryIO:
    return tempfile.TemporaryFile(buffering=0)


def buffered() -> BinaryIO:
    return tempfile.TemporaryFile()


@pytest.mark.parametrize("scratch", [unbuffered, buffered])
def test_files_of_the_system_are_read_back_whether_they_buffer_or_not(
    scratch: OpenSpillFile,
) -> None:
    with SpillFile(scratch, "lines") as file:
        file.append(b"0123")
        assert file.read_all([(2, 2), (0, 1)]) == [b"23", b"0"]
        file.append(b"45")
        assert file.read_all([(3, 9), (9, 1)]) == [b"345", b""]


def test_a_file_that_takes_less_at_a_time_gets_all_of_it() -> None:
    class Slow(io.BytesIO):
        @override
        def write(self, data: Buffer) -> int:
            return super().write(memoryview(data)[:3])

    with SpillFile(Slow, "lines") as scratch:
        scratch.append(b"0123456789")
        scratch.append(b"ab")
        assert scratch.read(8, 10) == b"89ab"


def test_space_is_given_back_piece_by_piece() -> None:
    with SpillFile(io.BytesIO, "lines") as scratch:
        assert not scratch.shrink()
        scratch.append(bytes(FREED_AT_ONCE))
        scratch.append(b"xy")
        assert scratch.shrink()
        assert scratch.length == 2
        assert scratch.read(0, 9) == bytes(2)
        assert not scratch.shrink()
        assert scratch.read(0, 9) == b""


def test_space_that_is_not_given_back_goes_with_the_file() -> None:
    class Stubborn(io.BytesIO):
        @override
        def truncate(self, size: int | None = None) -> int:
            raise OSError(5, "Input/output error")

    opened = Stubborn()
    with SpillFile(lambda: opened, "lines") as scratch:
        scratch.append(b"x")
        assert not scratch.shrink()
    assert opened.closed


def test_a_full_scratch_is_named_as_such() -> None:
    class Full(io.BytesIO):
        @override
        def write(self, data: object) -> int:
            raise OSError(28, "No space left on device")

    with (
        ExternalSorter(Full, run_bytes_max=1, run_items_max=1) as sorter,
        pytest.raises(StorageFull),
    ):
        sorter.add(b"k", b"r")


def test_scratch_is_closed_in_the_end() -> None:
    opened: list[io.BytesIO] = []

    def scratch() -> io.BytesIO:
        opened.append(io.BytesIO())
        return opened[-1]

    with ExternalSorter(scratch, run_bytes_max=1, run_items_max=1) as sorter:
        sorter.add(b"k", b"r")
    assert [file.closed for file in opened] == [True]


class FullOnFlush(io.BytesIO):
    """Takes everything, and finds no room once it must be written: as buffered files do."""

    @override
    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    @override
    def seek(self, offset: int, whence: int = 0) -> int:
        self.flush()
        return super().seek(offset, whence)

    @override
    def close(self) -> None:
        self.flush()


def test_lines_that_find_no_room_later_are_named_as_such() -> None:
    with RecordFile(FullOnFlush) as records:
        place = records.add(b"r")
        with pytest.raises(StorageFull):
            records.get(place)


def test_scratch_that_cannot_be_opened_is_named_as_such() -> None:
    def refusing() -> io.BytesIO:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageFull):
        RecordFile(refusing)
    with (
        ExternalSorter(refusing, run_bytes_max=1, run_items_max=1) as sorter,
        pytest.raises(StorageFull),
    ):
        sorter.add(b"k", b"r")


def test_a_full_disk_while_scratch_is_discarded_is_ignored() -> None:
    class FullOnClose(io.BytesIO):
        @override
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    with ExternalSorter(FullOnClose, run_bytes_max=1, run_items_max=1) as sorter:
        sorter.add(b"k", b"r")
