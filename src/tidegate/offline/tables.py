"""Results as a table: the columns of the input, and the result of each row."""

import csv
import io
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

from tidegate.domain.errors import Refused
from tidegate.offline import parquet
from tidegate.offline.answers import ResultRow, read_result_row
from tidegate.offline.job import FileFormat, OfflineJob, file_format_of
from tidegate.offline.prompts import text_of
from tidegate.offline.rows import read_columns, read_rows

ADDED = ("response", "error", "input_tokens", "output_tokens")
INTEGERS = frozenset({"input_tokens", "output_tokens"})
NAME = "custom_id"


class TableWriter(Protocol):
    """Writes a table row by row."""

    def write(self, cells: Sequence[object]) -> None:
        """Add one row."""

    def close(self) -> None:
        """Write the remaining rows."""


class CsvWriter:
    """Comma-separated rows in UTF-8, with newlines as on Unix."""

    def __init__(self, where: BinaryIO, names: Sequence[str]) -> None:
        self._text = io.TextIOWrapper(where, "utf-8", errors="replace", newline="")
        self._writer = csv.writer(self._text, lineterminator="\n")
        self._writer.writerow(names)

    def write(self, cells: Sequence[object]) -> None:
        """Add one row; None becomes an empty cell."""
        self._writer.writerow(["" if cell is None else cell for cell in cells])

    def close(self) -> None:
        """Write the remaining rows; the file itself stays open."""
        self._text.flush()
        self._text.detach()


def check_columns(job: OfflineJob) -> None:
    """Refuse a table that would have a column twice.

    Raises:
        Refused: the input has a column of a name that the output adds, or can't be read, or
            pyarrow is needed and missing.
    """
    if job.file_format is FileFormat.PARQUET or file_format_of(job.source) is FileFormat.PARQUET:
        parquet.check_installed()
    if job.prompt_options is None or job.file_format is FileFormat.JSONL:
        return
    taken = sorted({*ADDED} & {*read_columns(job.source, file_format_of(job.source))})
    if taken:
        raise Refused(
            f"{job.source} already has a column '{taken[0]}', which the output adds: rename it, or "
            "write JSONL."
        )


def write_table(
    job: OfflineJob, where: BinaryIO, results: Iterator[tuple[int, bytes]]
) -> Iterator[int]:
    """Write every result in the order of the input; yield after every few rows.

    Raises:
        Refused: the input can't be read any more, or was changed.
    """
    source = file_format_of(job.source)
    if job.prompt_options is None:
        return _write_rows(
            _open_writer(job.file_format, where, [NAME, *ADDED]), _results_only(results)
        )
    if source is job.file_format is FileFormat.PARQUET:
        cells = (_cells(read_result_row(line)) for _, line in results)
        return parquet.extend(job.source, where, ADDED, INTEGERS, cells)
    names = read_columns(job.source, source)
    return _write_rows(
        _open_writer(job.file_format, where, [*names, *ADDED]),
        _with_input_columns(job, names, results),
    )


def _open_writer(file_format: FileFormat, where: BinaryIO, names: Sequence[str]) -> TableWriter:
    if file_format is FileFormat.PARQUET:
        return parquet.ParquetWriter(where, names, INTEGERS)
    return CsvWriter(where, names)


def _write_rows(writer: TableWriter, rows: Iterator[Sequence[object]]) -> Iterator[int]:
    for row in rows:
        writer.write(row)
        yield 1
    writer.close()


def _results_only(results: Iterator[tuple[int, bytes]]) -> Iterator[Sequence[object]]:
    for _, line in results:
        answer = read_result_row(line)
        yield (answer.custom_id, *_cells(answer))


def _with_input_columns(
    job: OfflineJob, names: Sequence[str], results: Iterator[tuple[int, bytes]]
) -> Iterator[Sequence[object]]:
    for row in read_rows(job.source, file_format_of(job.source)):
        number, line = next(results, (None, b""))
        if number != row.number:
            raise Refused(f"{job.source} was changed since the run started: restore it.")
        given = [_cell(row.values.get(name)) for name in names]
        yield (*given, *_cells(read_result_row(line)))


def _cell(value: object) -> str | None:
    return None if value is None else text_of(value)


def _cells(answer: ResultRow) -> tuple[object, ...]:
    return answer.response, answer.error, answer.input_tokens, answer.output_tokens
