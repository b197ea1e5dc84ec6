"""What `tidegate run` prints: a live display on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from tidegate.cli.units import seconds_of
from tidegate.offline.job import OfflineJob
from tidegate.offline.progress import Phase, Snapshot
from tidegate.offline.run import RunEnd, RunOutcome
from tidegate.runtime.clock import Clock, SystemClock

LIVE_SECONDS = 0.25
PLAIN_SECONDS = 5.0
BAR_CELLS = 30
PROBLEMS_SHOWN_MAX = 20


class RunView:
    """Measures how long a run takes, and shows nothing of it."""

    def __init__(self, seconds: float, clock: Clock) -> None:
        self.seconds = seconds
        self._clock = clock
        self._since = clock.now()

    @property
    def elapsed(self) -> float:
        """Seconds since the view was made."""
        return max(0.0, self._clock.now() - self._since)

    def draw(self, snapshot: Snapshot) -> None:
        """Show a snapshot."""


class PlainView(RunView):
    """Prints one line every few seconds, if something changed."""

    _last = ""

    @override
    def draw(self, snapshot: Snapshot) -> None:
        """Write a line on standard error."""
        line = one_line(snapshot)
        if line != self._last and snapshot.total:
            typer.echo(line, err=True)
            sys.stderr.flush()
        self._last = line


class LiveView(RunView):
    """A bar with figures, redrawn in place."""

    def __init__(self, seconds: float, clock: Clock, live: Live) -> None:
        super().__init__(seconds, clock)
        self._live = live

    @override
    def draw(self, snapshot: Snapshot) -> None:
        """Redraw the bar."""
        self._live.update(render(snapshot), refresh=True)


@contextmanager
def make_view(job: OfflineJob, *, quiet: bool, clock: Clock | None = None) -> Iterator[RunView]:
    """Yield the view that suits standard error."""
    clock = clock or SystemClock()
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield RunView(PLAIN_SECONDS, clock)
    elif console.is_terminal:
        console.print(f"{job.source} → {job.target}", style="bold", markup=False)
        with Live(console=console, auto_refresh=False, redirect_stdout=False) as live:
            yield LiveView(LIVE_SECONDS, clock, live)
    else:
        yield PlainView(PLAIN_SECONDS, clock)


def render(snapshot: Snapshot) -> Group:
    """Return the bar, the figures below it, and the reason if the run is held up."""
    top = Table.grid(padding=(0, 1))
    share = f"{snapshot.done / snapshot.total:.0%}" if snapshot.total else ""
    total = snapshot.total or None
    bar = ProgressBar(total=total, completed=snapshot.done, width=BAR_CELLS, pulse=total is None)
    top.add_row(bar, share, _count(snapshot))
    rows: list[Table | Text] = [top, Text(_figures(snapshot), style="dim")]
    if snapshot.reason:
        rows.append(Text(f"waiting: {snapshot.reason}", style="yellow"))
    return Group(*rows)


def one_line(snapshot: Snapshot) -> str:
    """Return a run on one line."""
    reason = f"; waiting: {snapshot.reason}" if snapshot.reason else ""
    return f"{_count(snapshot)}; {_figures(snapshot)}{reason}"


def _count(snapshot: Snapshot) -> str:
    if not snapshot.total:
        return snapshot.phase.value
    failed = f", {snapshot.failed:,} failed" if snapshot.failed else ""
    phase = "" if snapshot.phase is Phase.RUNNING else f" ({snapshot.phase.value})"
    return f"{snapshot.done:,} of {snapshot.total:,} done{failed}{phase}"


def _figures(snapshot: Snapshot) -> str:
    parts = [f"in flight {snapshot.in_flight} of {snapshot.limit}"]
    if snapshot.lines_per_second is not None:
        parts.append(f"{snapshot.lines_per_second:,.1f} lines/s")
    if snapshot.tokens_per_second is not None:
        parts.append(f"{snapshot.tokens_per_second:,.0f} tokens/s")
    if snapshot.seconds_left is not None and snapshot.total > snapshot.done:
        parts.append(f"{seconds_of(snapshot.seconds_left)} left")
    return ", ".join(parts)


def summary(outcome: RunOutcome, job: OfflineJob) -> Iterator[str]:
    """Yield the lines that are printed at the end of a run."""
    match outcome.end:
        case RunEnd.FINISHED:
            assert outcome.finished is not None, "finished without an account"
            done = outcome.finished
            failed = f", {done.failed:,} failed" if done.failed else ""
            yield f"{done.completed:,} of {done.total:,} lines completed{failed}: {job.target}"
            if done.errors is not None:
                yield f"Failed lines with their errors: {done.errors}"
        case RunEnd.INTERRUPTED:
            counts = None if outcome.batch is None else outcome.batch.counts
            done_lines = 0 if counts is None else counts.completed + counts.failed
            total = f" of {counts.total:,}" if counts is not None and counts.total else ""
            without = " without --restart" if job.restart else ""
            yield (
                f"Stopped: {done_lines:,}{total} lines are done and kept in {job.folder}. Run the "
                f"same command again{without} to continue."
            )
        case RunEnd.INVALID:
            yield from _problems(outcome, job)


def _problems(outcome: RunOutcome, job: OfflineJob) -> Iterator[str]:
    yield f"{job.source} can't be run, and nothing was sent:"
    for problem in outcome.problems[:PROBLEMS_SHOWN_MAX]:
        where = "" if problem.line is None else f"line {problem.line}: "
        yield f"  {where}{problem.message} ({problem.code})"
    if len(outcome.problems) > PROBLEMS_SHOWN_MAX:
        yield f"  and more: `tidegate validate {job.source}` lists them all."
    if any(problem.param == "body.model" for problem in outcome.problems):
        yield "Give the model of every line with --model."
    elif job.prompt_options is None and any(item.param == "custom_id" for item in outcome.problems):
        yield "Rows that are not batch lines need --prompt-template or --column."
