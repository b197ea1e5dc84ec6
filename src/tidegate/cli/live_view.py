"""What `tidegate batches watch` prints: a live table, plain lines, or JSON lines."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tidegate.cli.units import count_of, rate_of, seconds_of
from tidegate.client.objects import BatchObject, compact_json
from tidegate.client.sanitize import sanitize
from tidegate.client.watch import BatchProgress, WatchState

BAR_COLUMNS_MIN, BAR_COLUMNS_MAX = 6, 24
OTHER_COLUMNS = 74  # What all columns but the bar take at most, with short ids.
WIDE_COLUMNS = 120  # In terminals of at least this width ids are shown whole,
WHOLE_ID_COLUMNS = 25  # which takes this many columns more.
_ID_HEAD, _ID_TAIL = 8, 4
STYLES = {
    "completed": "green",
    "failed": "red",
    "expired": "red",
    "cancelled": "yellow",
    "cancelling": "yellow",
}
_NOTE_CHARACTERS_MAX = 200


@contextmanager
def open_view(*, as_json: bool, console: Console) -> Iterator[Callable[[WatchState], None]]:
    """Yield a function that shows a state: as JSON, as a live table on a terminal, or as lines."""
    if as_json:
        yield _LinePrinter(lambda item: compact_json(item.raw)).show
    elif console.is_terminal:
        with Live(console=console, auto_refresh=False, transient=False) as live:
            yield lambda state: live.update(render(state, console.width), refresh=True)
    else:
        yield _LinePrinter(plain_line).show


def render(state: WatchState, columns: int) -> RenderableType:
    """Return a state as a table of at most `columns` columns, with reasons to wait below it."""
    wide = columns >= WIDE_COLUMNS
    room = columns - OTHER_COLUMNS - (WHOLE_ID_COLUMNS if wide else 0)
    bar_columns = min(BAR_COLUMNS_MAX, max(BAR_COLUMNS_MIN, room))
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("batch", no_wrap=True)
    table.add_column("status", no_wrap=True)
    table.add_column("", width=bar_columns)
    for head in ("done", "failed", "rate", "left", "tokens"):
        table.add_column(head, justify="right", no_wrap=True)
    notes: list[Text] = []
    for item in state.batches:
        batch, counts = item.batch, item.batch.counts
        table.add_row(
            Text(sanitize(batch.id, 48) if wide else shorten_id(batch.id)),
            Text(sanitize(batch.status, 20), style=STYLES.get(batch.status, "cyan")),
            _bar(batch, bar_columns),
            Text(f"{count_of(counts.completed + counts.failed)}/{count_of(counts.total)}"),
            Text(count_of(counts.failed), style="red" if counts.failed else ""),
            Text(rate_of(item.rate)),
            Text(seconds_of(item.seconds_left)),
            Text(_tokens(batch)),
        )
        if batch.waiting_for and not batch.is_terminal:
            notes.append(
                Text(f"{shorten_id(batch.id)} waiting: {_short(batch.waiting_for)}", "yellow")
            )
    if state.no_answer:
        notes.append(Text(f"No answer, retrying: {_short(state.no_answer)}", style="red"))
    return Group(table, *notes)


def plain_line(item: BatchProgress) -> str:
    """Return the progress of a batch as a line."""
    batch, counts = item.batch, item.batch.counts
    words = [
        sanitize(batch.id),
        sanitize(batch.status, 30),
        f"{counts.completed + counts.failed}/{counts.total} done,",
        f"{counts.failed} failed,",
        f"{rate_of(item.rate)},",
        f"{seconds_of(item.seconds_left)} left,",
        f"{_tokens(batch)} tokens",
    ]
    if batch.waiting_for and not batch.is_terminal:
        words.append(f"(waiting: {_short(batch.waiting_for)})")
    return " ".join(words)


class _LinePrinter:
    """Prints a line for each batch that changed since the state before."""

    def __init__(self, line: Callable[[BatchProgress], str]) -> None:
        self._line = line
        self._shown: dict[str, BatchObject] = {}
        self._silent = False

    def show(self, state: WatchState) -> None:
        if state.no_answer and not self._silent:
            Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(
                f"tidegate: no answer, retrying: {_short(state.no_answer)}"
            )
        self._silent = state.no_answer is not None
        for item in changed(state.batches, self._shown):
            self._shown[item.batch.id] = item.batch
            print(self._line(item), flush=True)


def changed(batches: Sequence[BatchProgress], shown: dict[str, BatchObject]) -> list[BatchProgress]:
    """Return the batches that changed since they were last shown."""
    return [item for item in batches if shown.get(item.batch.id) != item.batch]


def _bar(batch: BatchObject, columns: int) -> ProgressBar:
    counts = batch.counts
    unknown = not counts.total and not batch.is_terminal
    return ProgressBar(
        total=None if unknown else max(1, counts.total),
        completed=counts.completed + counts.failed,
        width=columns,
        pulse=unknown,
        complete_style=STYLES.get(batch.status, "cyan"),
    )


def _tokens(batch: BatchObject) -> str:
    if batch.usage is None:
        return "-"
    usage = batch.usage
    return count_of(usage.total_tokens or usage.input_tokens + usage.output_tokens)


def _short(text: str) -> str:
    return sanitize(text, _NOTE_CHARACTERS_MAX)


def shorten_id(batch_id: str) -> str:
    """Return the beginning and the end of an id, which is enough to distinguish batches."""
    shown = sanitize(batch_id)
    if len(shown) <= _ID_HEAD + _ID_TAIL + 1:
        return shown
    return f"{shown[:_ID_HEAD]}…{shown[-_ID_TAIL:]}"
