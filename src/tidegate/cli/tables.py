"""Files and batches of a server as lines of text and as tables."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.table import Table

from tidegate.cli.units import bytes_of
from tidegate.client.objects import BatchObject, FileObject, compact_json, decode
from tidegate.client.sanitize import sanitize

PROBLEMS_SHOWN_MAX = 10


def time_of(at: float | None) -> str:
    """Return a Unix time as text, in UTC."""
    if at is None:
        return "-"
    try:
        return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    except (OverflowError, ValueError, OSError):
        return "?"


def file_lines(file: FileObject) -> Iterable[str]:
    """Yield the lines that describe a file."""
    yield f"id        {sanitize(file.id)}"
    yield f"filename  {sanitize(file.filename or '-')}"
    yield f"bytes     {'-' if file.bytes is None else file.bytes}"
    yield f"purpose   {sanitize(file.purpose or '-')}"
    yield f"created   {time_of(file.created_at)}"
    yield f"expires   {time_of(file.expires_at)}"


def batch_lines(batch: BatchObject) -> Iterable[str]:
    """Yield the lines that describe a batch."""
    counts = batch.counts
    yield f"id        {sanitize(batch.id)}"
    yield f"status    {sanitize(batch.status)}"
    yield f"endpoint  {sanitize(batch.endpoint or '-')}"
    yield f"lines     {counts.total} in all, {counts.completed} completed, {counts.failed} failed"
    if batch.usage is not None:
        tokens = batch.usage
        yield f"tokens    {tokens.input_tokens} in, {tokens.output_tokens} out"
    yield f"created   {time_of(batch.created_at)}"
    yield f"expires   {time_of(batch.expires_at)}"
    yield f"input     {sanitize(batch.input_file_id or '-')}"
    yield f"output    {sanitize(batch.output_file_id or '-')}"
    yield f"errors    {sanitize(batch.error_file_id or '-')}"
    if batch.waiting_for:
        yield f"waiting   {sanitize(batch.waiting_for)}"
    yield from problem_lines(batch)


def problem_lines(batch: BatchObject) -> Iterable[str]:
    """Yield the first reasons why a batch could not be run."""
    problems = batch.errors.data if batch.errors is not None else []
    for problem in problems[:PROBLEMS_SHOWN_MAX]:
        where = "" if problem.line is None else f"line {problem.line}: "
        yield f"  {where}{sanitize(problem.message or '')} ({sanitize(problem.code or '-', 60)})"
    if len(problems) > PROBLEMS_SHOWN_MAX:
        yield f"  and {len(problems) - PROBLEMS_SHOWN_MAX} more (--json shows them)"


def file_row(raw: msgspec.Raw) -> Sequence[str]:
    """Return a file as a row of `FILE_HEADS`."""
    file = decode(raw, FileObject)
    size = "-" if file.bytes is None else bytes_of(file.bytes)
    name, purpose = sanitize(file.filename or "-", 60), sanitize(file.purpose or "-", 30)
    return sanitize(file.id), size, purpose, time_of(file.created_at), name


def batch_row(raw: msgspec.Raw) -> Sequence[str]:
    """Return a batch as a row of `BATCH_HEADS`."""
    batch = decode(raw, BatchObject)
    counts = batch.counts
    done = f"{counts.completed + counts.failed}/{counts.total}"
    return (
        sanitize(batch.id),
        sanitize(batch.status, 30),
        done,
        str(counts.failed),
        time_of(batch.created_at),
        sanitize(batch.endpoint or "-", 60),
    )


FILE_HEADS = ("id", "size", "purpose", "created", "filename")
BATCH_HEADS = ("id", "status", "done", "failed", "created", "endpoint")


async def print_list(
    items: AsyncIterator[msgspec.Raw],
    heads: Sequence[str],
    row_of: Callable[[msgspec.Raw], Sequence[str]],
    *,
    as_json: bool,
) -> None:
    """Print objects: as JSON one on each line as they come, else as rows."""
    if as_json:
        async for item in items:
            print(compact_json(item))
    else:
        print_rows(heads, [row_of(item) async for item in items])


def print_rows(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows: a table in a terminal, else lines with columns separated by tabs."""
    console = Console(highlight=False, soft_wrap=True, markup=False)
    if not console.is_terminal:
        for row in rows:
            print("\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in heads:
        table.add_column(head, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console.print(table)
