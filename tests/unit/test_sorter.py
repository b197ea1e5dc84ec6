import io

import pytest
from hypothesis import given, strategies as st
from typing_extensions import override

from tidegate.domain.errors import StorageFull
from tidegate.processor.sorter import ExternalSorter, Records

PAIRS = st.lists(st.tuples(st.binary(max_size=4), st.binary(max_size=4)), max_size=60)


@given(pairs=PAIRS, items=st.integers(1, 20), size=st.integers(1, 60))
def test_it_equals_a_sort_in_memory(
    pairs: list[tuple[bytes, bytes]], items: int, size: int
) -> None:
    with ExternalSorter(io.BytesIO, run_bytes_max=size, run_items_max=items) as sorter:
        for key, record in pairs:
            sorter.add(key, record)
            assert len(sorter._held) < items, "a run grew past its bound"
        assert list(sorter.merged()) == sorted(pairs)


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
    with Records(FullOnFlush) as records:
        place = records.add(b"r")
        with pytest.raises(StorageFull):
            records.get(place)


def test_scratch_that_cannot_be_opened_is_named_as_such() -> None:
    def refusing() -> io.BytesIO:
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageFull):
        Records(refusing)
    with (
        ExternalSorter(refusing, run_bytes_max=1, run_items_max=1) as sorter,
        pytest.raises(StorageFull),
    ):
        sorter.add(b"k", b"r")


def test_scratch_that_finds_no_room_when_it_is_thrown_away_harms_nobody() -> None:
    class FullOnClose(io.BytesIO):
        @override
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    with ExternalSorter(FullOnClose, run_bytes_max=1, run_items_max=1) as sorter:
        sorter.add(b"k", b"r")
