"""Parquet, by pyarrow: the one file that knows it. It comes with `tidegate[parquet]`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol, Self

from tidegate.domain.errors import Refused

ROWS_AT_ONCE = 512


# pyarrow ships no types. These are what passes between the functions of this file.
class _Column(Protocol):
    def to_pylist(self) -> list[object]: ...

    def cast(self, kind: str) -> Self: ...


class _Batch(Protocol):
    num_rows: int
    columns: list[_Column]


class _Schema(Protocol):
    names: list[str]
    types: list[object]

    def append(self, field: object) -> Self: ...


class _File(Protocol):
    schema_arrow: _Schema

    def iter_batches(self, batch_size: int) -> Iterator[_Batch]: ...


def check_installed() -> None:
    """Refuse work that needs Parquet if pyarrow is missing.

    Raises:
        Refused: it is missing.
    """
    try:
        import pyarrow as pa  # noqa: F401, PLC0415 -- optional, and slow to import
    except ImportError as error:
        raise Refused(
            "Parquet needs pyarrow, which is not installed: pip install 'tidegate[parquet]'."
        ) from error


def column_names(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises:
        Refused: the file can't be read, or pyarrow is missing.
    """
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_rows(path: Path) -> Iterator[Mapping[str, object]]:
    """Yield the rows as dicts, `ROWS_AT_ONCE` of them in memory at a time.

    Raises:
        Refused: the file can't be read, or pyarrow is missing.
    """
    with _opened(path) as file:
        names = file.schema_arrow.names
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            values = [_values(column) for column in batch.columns]
            for cells in zip(*values, strict=True):
                yield dict(zip(names, cells, strict=True))


def _values(column: _Column) -> Sequence[object]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        # Python has no such value, for example an instant in nanoseconds; Arrow has a text for it.
        return column.cast("string").to_pylist()


class ParquetWriter:
    """Writes rows of texts, with whole numbers in the columns that `integers` names."""

    def __init__(self, where: BinaryIO, names: Sequence[str], integers: frozenset[str]) -> None:
        check_installed()
        from pyarrow import parquet, schema  # noqa: PLC0415 -- as above

        self._schema = schema(_fields(names, integers))
        self._writer = parquet.ParquetWriter(where, self._schema)
        self._held: list[Sequence[object]] = []

    def write(self, cells: Sequence[object]) -> None:
        """Add one row."""
        self._held.append(cells)
        if len(self._held) >= ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write the remaining rows, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            self._writer.write_batch(_batch([], self._held, self._schema))
            self._held = []


def extend(
    source: Path,
    where: BinaryIO,
    names: Sequence[str],
    integers: frozenset[str],
    cells: Iterator[Sequence[object]],
) -> Iterator[int]:
    """Write a copy of a file with further columns; the types of its own columns stay.

    Yields how many rows were written, for every few of them.

    Raises:
        Refused: the file can't be read, or pyarrow is missing.
    """
    with _opened(source) as file:
        from pyarrow import parquet  # noqa: PLC0415 -- as above

        schema = file.schema_arrow
        for field in _fields(names, integers):
            schema = schema.append(field)
        writer = parquet.ParquetWriter(where, schema)
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            added = [next(cells) for _ in range(batch.num_rows)]
            writer.write_batch(_batch(batch.columns, added, schema))
            yield batch.num_rows
        writer.close()


def _fields(names: Sequence[str], integers: frozenset[str]) -> list[object]:
    from pyarrow import field, int64, string  # noqa: PLC0415 -- as above

    return [field(name, int64() if name in integers else string()) for name in names]


def _batch(columns: Sequence[_Column], rows: Sequence[Sequence[object]], schema: _Schema) -> object:
    """Return columns as they are, and rows as the columns after them."""
    from pyarrow import RecordBatch, array  # noqa: PLC0415 -- as above

    kinds = schema.types[len(columns) :]
    added = zip(zip(*rows, strict=True), kinds, strict=True)
    arrays = [array(values, type=kind) for values, kind in added]
    return RecordBatch.from_arrays([*columns, *arrays], schema=schema)


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    check_installed()
    from pyarrow import ArrowException, parquet  # noqa: PLC0415 -- as above

    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except FileNotFoundError as error:
        raise Refused(f"There is no file {path}: check the name of the input.") from error
    except (OSError, ArrowException) as error:
        raise Refused(f"{path} can't be read as Parquet ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
