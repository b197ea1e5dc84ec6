"""Reads the rows of an input that is not a batch file, in any format, one at a time."""

import csv
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from tidegate.domain.errors import Refused
from tidegate.offline import parquet
from tidegate.offline.job import FileFormat
from tidegate.wire.jsonl import LineSplitter

READ_BYTES = 2**20
ROW_BYTES_MAX = 8 * 2**20
COLUMNS_MAX = 1_000

_decode = msgspec.json.Decoder(dict[str, object]).decode


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `number` identifies it and grows from row to row; `place` is for messages."""

    number: int
    place: str
    values: Mapping[str, object]


def pieces_of(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file.

    Raises:
        Refused: it can't be read, or is a pipe or a device.
    """
    if path.is_fifo() or path.is_char_device() or path.is_block_device():
        # The input is read more than once.
        raise Refused(f"{path} is a pipe or a device, not a file: write it into a file first.")
    try:
        with path.open("rb") as file:
            while piece := file.read(READ_BYTES):
                yield piece
    except OSError as error:
        raise unreadable(path, error) from error


def numbered_lines(path: Path, line_bytes_max: int) -> Iterator[tuple[int, bytes | None]]:
    """Yield lines that are not blank, as `LineSplitter` does; raise as `pieces_of` does."""
    splitter = LineSplitter(line_bytes_max)
    for piece in pieces_of(path):
        yield from splitter.feed(piece)
    yield from splitter.finish()


def read_rows(path: Path, file_format: FileFormat) -> Iterator[Row]:
    """Yield every row, with constant memory.

    Raises:
        Refused: the file or a row can't be read; the message names the place.
    """
    match file_format:
        case FileFormat.CSV:
            return _csv_rows(path)
        case FileFormat.PARQUET:
            return _parquet_rows(path)
        case FileFormat.JSONL:
            return _jsonl_rows(path)


def read_columns(path: Path, file_format: FileFormat) -> list[str]:
    """Return the names of all columns; those of JSONL in the order in which they first appear.

    Raises:
        Refused: the file can't be read, or has more than `COLUMNS_MAX` columns.
    """
    names = _columns(path, file_format)
    if len(names) > COLUMNS_MAX:
        raise Refused(f"{path} has more than {COLUMNS_MAX} columns: leave some out.")
    return names


def _columns(path: Path, file_format: FileFormat) -> list[str]:
    match file_format:
        case FileFormat.CSV:
            return next(_csv_records(path), (0, list[str]()))[1]
        case FileFormat.PARQUET:
            return parquet.column_names(path)
        case FileFormat.JSONL:
            return _jsonl_columns(path)


def unreadable(path: Path, error: OSError) -> Refused:
    """Return the error for a file that can't be read."""
    if isinstance(error, FileNotFoundError):
        return Refused(f"There is no file {path}: check the name of the input.")
    return Refused(f"{path} can't be read ({error.strerror}): fix that, or name another input.")


def _jsonl_rows(path: Path) -> Iterator[Row]:
    for number, raw in numbered_lines(path, ROW_BYTES_MAX):
        yield _jsonl_row(path, number, raw)


def _jsonl_row(path: Path, number: int, raw: bytes | None) -> Row:
    place = f"line {number} of {path}"
    if raw is None:
        raise Refused(f"Row too large: {place} has more than {ROW_BYTES_MAX} bytes. Split it.")
    try:
        return Row(number, place, _decode(raw))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Refused(f"Not JSON: {place} must be one JSON object in UTF-8.") from error


def _jsonl_columns(path: Path) -> list[str]:
    names: dict[str, None] = {}
    for row in _jsonl_rows(path):
        names.update(dict.fromkeys(row.values))
        if len(names) > COLUMNS_MAX:
            break
    return list(names)


def _csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the header and each record that is not blank, with the number of its last line."""
    # The parser's own limit is global to the process.
    csv.field_size_limit(min(ROW_BYTES_MAX, sys.maxsize))
    reader = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for record in reader:
                if record:
                    yield reader.line_num, record
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise Refused(f"{path} is not UTF-8 text: convert it, for example with iconv.") from error
    except csv.Error as error:
        at = 0 if reader is None else reader.line_num
        raise Refused(f"Not CSV: line {at} of {path} can't be read ({error}).") from error


def _csv_rows(path: Path) -> Iterator[Row]:
    records = _csv_records(path)
    _, header = next(records, (0, []))
    if len(set(header)) != len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise Refused(f"The header of {path} has the column '{twice}' twice: rename one.")
    for number, (line, record) in enumerate(records, 1):
        place = f"line {line} of {path}"
        if len(record) != len(header):
            raise Refused(
                f"Wrong number of fields: {place} has {len(record)}, its header {len(header)}."
            )
        yield Row(number, place, dict(zip(header, record, strict=True)))


def _parquet_rows(path: Path) -> Iterator[Row]:
    for number, values in enumerate(parquet.read_rows(path), 1):
        yield Row(number, f"row {number} of {path}", values)
