"""How batches and figures look in a terminal."""

import io

import pytest
from rich.console import Console

from tidegate.cli.live_view import open_view, plain_line, render
from tidegate.cli.tables import PROBLEMS_SHOWN_MAX, batch_lines, file_lines, time_of
from tidegate.cli.units import bytes_of, count_of, rate_of, seconds_of
from tidegate.client.objects import (
    BatchCounts,
    BatchObject,
    BatchProblem,
    BatchProblems,
    BatchUsage,
    Extras,
    FileObject,
)
from tidegate.client.sanitize import sanitize
from tidegate.client.watch import BatchProgress, WatchState

RUNNING = BatchObject(
    id="batch_1",
    status="in_progress",
    request_counts=BatchCounts(total=40_000, completed=12_000, failed=3),
    usage=BatchUsage(input_tokens=1_000_000, output_tokens=500_000, total_tokens=1_500_000),
    tidegate=Extras(waiting_for="the model server\x1b[31m rests"),
)


def progress(batch: BatchObject) -> BatchProgress:
    return BatchProgress(batch=batch, raw=b'{ "id": "batch_1" }', rate=41.26, seconds_left=678.0)


def on_a_terminal(state: WatchState, columns: int = 120) -> str:
    sink = io.StringIO()
    console = Console(file=sink, width=columns, force_terminal=True, color_system=None)
    console.print(render(state, columns))
    return sink.getvalue()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (bytes_of(999), "999 B"),
        (bytes_of(1_000), "1.0 kB"),
        (bytes_of(12_300_000), "12.3 MB"),
        (bytes_of(5e9), "5.0 GB"),
        (bytes_of(7e12), "7.0 TB"),
        (seconds_of(0.4), "0s"),
        (seconds_of(59.6), "1m 00s"),
        (seconds_of(3_599), "59m 59s"),
        (seconds_of(3_600), "1h 00m"),
        (seconds_of(90_000), "1d 01h"),
        (count_of(9_999), "9999"),
        (count_of(10_000), "10.0k"),
        (count_of(2_500_000), "2.5M"),
        (rate_of(0.44), "0.4/s"),
        (rate_of(123.4), "123/s"),
        (time_of(0), "1970-01-01 00:00:00Z"),
        (time_of(1e18), "?"),
        (sanitize("a\x1b[2J\u202e\n b\tc"), "a\ufffd[2J\ufffd b c"),
        (sanitize("x" * 11, 10), "x" * 10 + "…"),
    ],
)
def test_figures_read_well(shown: str, expected: str) -> None:
    assert shown == expected


def test_what_is_not_known_is_a_dash() -> None:
    assert {seconds_of(None), rate_of(None), time_of(None)} == {"-"}


def test_a_running_batch_has_its_row_and_its_reason_to_wait() -> None:
    text = on_a_terminal(WatchState(batches=[progress(RUNNING)], no_answer="Refused."))
    for words in ("batch_1", "in_progress", "12.0k/40.0k", "41/s", "11m 18s", "1.5M", "━"):
        assert words in text
    assert "waiting: the model server\ufffd[31m rests" in text
    assert "No answer, retrying: Refused." in text


@pytest.mark.parametrize("columns", [80, 100, 119, 120, 200])
def test_every_figure_is_readable_at_any_usual_width(columns: int) -> None:
    batch = BatchObject(
        id="batch_0123456789abcdef0123456789abcdef",
        status="in_progress",
        request_counts=BatchCounts(total=50_000, completed=49_000),
        usage=BatchUsage(total_tokens=123_456_789),
    )
    item = BatchProgress(batch=batch, raw=b"", rate=1_234.0, seconds_left=3_599.0)
    text = on_a_terminal(WatchState(batches=[item]), columns)
    assert max(map(len, text.splitlines())) <= columns
    for words in ("in_progress", "49.0k/50.0k", "1234/s", "59m 59s", "123.5M", "tokens"):
        assert words in text
    assert (batch.id if columns >= 120 else "batch_01…cdef") in text


def test_a_batch_that_is_not_yet_planned_pulses() -> None:
    batch = BatchObject(id="batch_1", status="validating")
    assert "validating" in on_a_terminal(WatchState(batches=[progress(batch)]))


def test_a_plain_line_says_the_same() -> None:
    assert plain_line(progress(RUNNING)) == (
        "batch_1 in_progress 12003/40000 done, 3 failed, 41/s, 11m 18s left, 1.5M tokens "
        "(waiting: the model server\ufffd[31m rests)"
    )


@pytest.mark.parametrize(("as_json", "line"), [(False, "batch_1 in_"), (True, '{"id":"batch_1"}')])
def test_outside_a_terminal_only_changes_are_printed(
    capsys: pytest.CaptureFixture[str], *, as_json: bool, line: str
) -> None:
    console = Console(file=io.StringIO())
    with open_view(as_json=as_json, console=console) as show:
        for no_answer in (None, "Refused.", "Refused.", None):
            show(WatchState(batches=[progress(RUNNING)], no_answer=no_answer))
    said = capsys.readouterr()
    assert said.out.count("\n") == 1
    assert said.out.startswith(line)
    assert said.err == "tidegate: no answer, retrying: Refused.\n"


def test_reasons_for_failure_are_listed_up_to_a_bound() -> None:
    problems = [
        BatchProblem(code="c", message=f"m{n}", line=n) for n in range(PROBLEMS_SHOWN_MAX + 2)
    ]
    batch = BatchObject(id="b", status="failed", errors=BatchProblems(data=problems))
    lines = list(batch_lines(batch))
    assert "  line 0: m0 (c)" in lines
    assert lines[-1] == "  and 2 more (--json shows them)"
    assert sum(line.startswith("  line") for line in lines) == PROBLEMS_SHOWN_MAX


def test_a_file_of_a_terse_server_is_shown_all_the_same() -> None:
    assert "bytes     -" in list(file_lines(FileObject(id="file-x")))
