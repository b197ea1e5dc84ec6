"""The pure parts of the collector: settings, reports, which parts are joined, lines read back."""

import pytest
from hypothesis import given, strategies as st

from tidegate.collector.compaction import runs
from tidegate.collector.report import NAMES_MAX, Damage, Report
from tidegate.collector.settings import Settings
from tidegate.domain.errors import SettingsInvalid
from tidegate.domain.file import Part
from tidegate.domain.shard import Tally
from tidegate.domain.usage import Usage
from tidegate.processor.dispatch.open_batch import CANCELLED, EXPIRED
from tidegate.wire.read_results import EXPIRED_CODE, number_of, tally_of
from tidegate.wire.results import error_line, reply_line

NAME = b'"one \\ud800 \\" two"'


@pytest.mark.parametrize(
    "wrong",
    [
        {"interval_seconds": 0.0},
        {"sweep_seconds": 59.0},
        {"retention_seconds": -1.0},
        {"download_seconds_max": -1.0},
        {"upload_seconds_max": 0.0},
        {"compact_parts_min": 1},
        {"compact_bytes_max": 0},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, float]) -> None:
    [name] = wrong
    with pytest.raises(SettingsInvalid, match=f"collector.{name} must be"):
        Settings(**wrong)  # type: ignore[arg-type]  # numbers of either kind


def test_settings_at_their_bounds_are_right() -> None:
    Settings(
        interval_seconds=1.0,
        sweep_seconds=1.0,
        retention_seconds=0.0,
        download_seconds_max=0.0,
        compact_parts_min=2,
        compact_bytes_max=1,
    )


def test_reports_add_up_and_keep_a_limited_number_of_names() -> None:
    damage = Damage(blob="plans/b/1", needed=3, found=None)
    one = Report(
        files_released=1, bytes_deleted=5, unknown_blobs=99, unknown_blob_names=("a",) * 99
    )
    two = Report(
        files_released=2, unknown_blobs=2, unknown_blob_names=("b", "c"), damages=(damage,)
    )
    both = one + two
    assert (both.files_released, both.bytes_deleted, both.unknown_blobs) == (3, 5, 101)
    assert both.unknown_blob_names == ("a",) * 99 + ("b",)
    assert len(both.unknown_blob_names) == NAMES_MAX
    assert both.damages == (damage,)
    assert one + Report() == one


def test_a_damage_is_described_in_words() -> None:
    missing = Damage(blob="plans/b/1", needed=3, found=None, batches=("b",))
    assert missing.sentence == "'plans/b/1' is missing (3 bytes are needed, of b)"
    short = Damage(blob="uploads/u", needed=3, found=2)
    assert short.sentence == "'uploads/u' has only 2 (3 bytes are needed)"
    unreadable = Damage(blob="uploads/u", needed=3, found=None, readable=False)
    assert unreadable.sentence == "'uploads/u' can't be read (3 bytes are needed)"


def parts(*lengths: int) -> list[Part]:
    return [Part(blob="b", offset=0, length=length) for length in lengths]


@pytest.mark.parametrize(
    ("lengths", "bytes_max", "expected"),
    [
        ((), 10, []),
        ((1,), 10, []),
        ((1, 1), 10, [(0, 2)]),
        ((4, 4, 2), 10, [(0, 3)]),
        ((4, 4, 3), 10, [(0, 2)]),
        ((4, 4, 4, 4), 10, [(0, 2), (2, 4)]),
        ((5, 1, 1), 10, [(1, 3)]),
        ((1, 1, 5, 1, 1), 10, [(0, 2), (3, 5)]),
        ((1, 50, 1), 10, []),
        ((50, 50), 10, []),
    ],
)
def test_neighbours_are_joined_up_to_the_bound(
    lengths: tuple[int, ...], bytes_max: int, expected: list[tuple[int, int]]
) -> None:
    assert runs(parts(*lengths), bytes_max) == expected


@given(st.lists(st.integers(1, 30), max_size=40), st.integers(1, 40))
def test_runs_lie_apart_fit_and_come_to_an_end(lengths: list[int], bytes_max: int) -> None:
    rounds = 0
    while found := runs(parts(*lengths), bytes_max):
        rounds += 1
        position = 0
        joined: list[int] = []
        for start, end in found:
            assert position <= start < start + 1 < end
            assert sum(lengths[start:end]) <= bytes_max
            joined += [*lengths[position:start], sum(lengths[start:end])]
            position = end
        lengths = [*joined, *lengths[position:]]
    assert rounds <= 40
    small = [2 * length < bytes_max for length in lengths]
    assert all(
        lengths[i] + lengths[i + 1] > bytes_max
        for i in range(len(lengths) - 1)
        if small[i] and small[i + 1]
    )


def test_a_reply_is_read_back() -> None:
    body = b'{"usage":{"prompt_tokens":3,"completion_tokens":2}}'
    line = reply_line("batch_req_12ab_7", NAME, status=200, upstream_id="x", body=body)
    assert number_of(line[:-1]) == 7
    expected = Tally(completed=1, usage=Usage(input_tokens=3, output_tokens=2))
    assert tally_of(line[:-1], NAME, is_error=False) == expected
    assert tally_of(line[:-1], NAME, is_error=True) == Tally(failed=1)
    assert tally_of(line[:-1], b'"another"', is_error=False) is None


def test_a_reply_that_was_counted_without_tokens_is_so_again() -> None:
    body = b'{"text":"\\ud800","usage":{"prompt_tokens":3}}'
    line = reply_line("batch_req_12ab_7", NAME, status=200, upstream_id="x", body=body)
    assert tally_of(line[:-1], NAME, is_error=False) == Tally(completed=1)


def test_errors_are_read_back() -> None:
    assert EXPIRED[0] == EXPIRED_CODE
    for (code, message), expired in ((EXPIRED, 1), (CANCELLED, 0)):
        line = error_line("batch_req_12ab_50000", NAME, code=code, message=message)[:-1]
        assert number_of(line) == 50_000
        assert tally_of(line, NAME, is_error=True) == Tally(failed=1, expired=expired)


@pytest.mark.parametrize("line", [b"", b"{}", b'{"id":"batch_req_x","custom_id":"x"}', b'{"id":7'])
def test_what_is_no_result_has_no_number(line: bytes) -> None:
    assert number_of(line) is None
    assert tally_of(line, b'"x"', is_error=True) is None
