"""Which custom_ids come twice."""

import io
from contextlib import ExitStack

import pytest
from hypothesis import given, strategies as st

from tidegate.planning import duplicate_ids
from tidegate.planning.duplicate_ids import BUCKETS, DuplicateIdFinder
from tidegate.sorting.external_sort import ExternalSorter


def names_of(stack: ExitStack, given_names: list[str]) -> DuplicateIdFinder:
    sorter = stack.enter_context(ExternalSorter(io.BytesIO, run_bytes_max=50, run_items_max=3))
    taken = DuplicateIdFinder(sorter, io.BytesIO, stack)
    for number, name in enumerate(given_names, start=1):
        taken.add(number, name)
    return taken


def repeated(given_names: list[str]) -> list[int]:
    """Say in the plainest way which lines have a name that an earlier one has."""
    return [
        number
        for number, name in enumerate(given_names, start=1)
        if name in given_names[: number - 1]
    ]


@given(
    given_names=st.lists(st.text(alphabet="abé\0", min_size=1, max_size=3), max_size=30),
    at_once=st.integers(1, 10),
    alike=st.booleans(),
)
def test_repeated_names_are_found_for_any_hashes(
    given_names: list[str], at_once: int, *, alike: bool
) -> None:
    with ExitStack() as stack, pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicate_ids, "NAMES_AT_ONCE", at_once)
        if alike:
            patch.setattr(duplicate_ids, "hash", len, raising=False)
        taken = names_of(stack, given_names)
        suspects = list(taken.suspects())
        assert len(suspects) == BUCKETS
        expected = repeated(given_names)
        if not any(suspects):
            assert expected == []
        found = [number for number in taken.duplicates() if number is not None]
        assert sorted(found) == expected


def test_different_names_are_not_suspected() -> None:
    with ExitStack() as stack:
        assert not any(names_of(stack, [f"line-{number}" for number in range(999)]).suspects())
