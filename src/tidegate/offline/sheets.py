"""Results as a table: the columns of the input, and what came of each row."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

from tidegate.domain.errors import Refused
from tidegate.offline import parquet
from tidegate.offline.answers import Answer, read_answer
from tidegate.offline.job import Form, Job, form_of
from tidegate.offline.prompts import text_of
from tidegate.offline.rows import read_columns, read_rows

ADDED = ("response", "error", "input_tokens", "output_tokens")
INTEGERS = frozenset({"input_tokens", "output_tokens"})
NAME = "custom_id"


class Sheet(Protocol):
    """Takes one row after the other."""

    def write(self, cells: Sequence[object]) -> None:
        """Add one row."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class CsvSheet:
    """Comma-separated rows in UTF-8, with newlines as on Unix."""

    def __init__(self, where: BinaryIO, names: Sequence[str]) -> None:
        self._text = io.TextIOWrapper(where, "utf-8", errors="replace", newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(names)

    def write(self, cells: Sequence[object]) -> None:
        """Add one row; nothing stands for what is not there."""
        self._writer.writerow(["" if cell is None else cell for cell in cells])

    def close(self) -> None:
        """Write what is left; the file itself stays open."""
        self._text.flush()
        self._text.detach()


def check_columns(job: Job) -> None:
    """Refuse a table that would have a column twice, before anything is sent.

    Raises:
        Refused: the input has a column of a name that the output adds, or can't be read, or
            pyarrow is needed and missing.
    """
    if job.form is Form.PARQUET or form_of(job.source) is Form.PARQUET:
        parquet.check_installed()
    if job.prompting is None or job.form is Form.JSONL:
        return
    taken = sorted({*ADDED} & {*read_columns(job.source, form_of(job.source))})
    if taken:
        raise Refused(
            f"{job.source} has a column '{taken[0]}' already, which the output adds: rename it, or "
            "write JSONL."
        )


def write_table(job: Job, where: BinaryIO, results: Iterator[tuple[int, bytes]]) -> Iterator[int]:
    """Write every result in the order of the input; yield after every few rows.

    Raises:
        Refused: the input can't be read any more, or is another.
    """
    source = form_of(job.source)
    if job.prompting is None:
        return _written(_sheet(job.form, where, [NAME, *ADDED]), _alone(results))
    if source is job.form is Form.PARQUET:
        cells = (_cells(read_answer(line)) for _, line in results)
        return parquet.extend(job.source, where, ADDED, INTEGERS, cells)
    names = read_columns(job.source, source)
    return _written(_sheet(job.form, where, [*names, *ADDED]), _joined(job, names, results))


def _sheet(form: Form, where: BinaryIO, names: Sequence[str]) -> Sheet:
    if form is Form.PARQUET:
        return parquet.Sheet(where, names, INTEGERS)
    return CsvSheet(where, names)


def _written(sheet: Sheet, rows: Iterator[Sequence[object]]) -> Iterator[int]:
    for row in rows:
        sheet.write(row)
        yield 1
    sheet.close()


def _alone(results: Iterator[tuple[int, bytes]]) -> Iterator[Sequence[object]]:
    for _, line in results:
        answer = read_answer(line)
        yield (answer.custom_id, *_cells(answer))


def _joined(
    job: Job, names: Sequence[str], results: Iterator[tuple[int, bytes]]
) -> Iterator[Sequence[object]]:
    for row in read_rows(job.source, form_of(job.source)):
        number, line = next(results, (None, b""))
        if number != row.number:
            raise Refused(f"{job.source} was changed since the run began: put it back.")
        given = [_cell(row.values.get(name)) for name in names]
        yield (*given, *_cells(read_answer(line)))


def _cell(value: object) -> str | None:
    return None if value is None else text_of(value)


def _cells(answer: Answer) -> tuple[object, ...]:
    return answer.response, answer.error, answer.input_tokens, answer.output_tokens
