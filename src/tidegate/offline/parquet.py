"""Parquet, by pyarrow: the one file that knows it. It comes with `tidegate[parquet]`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import BinaryIO, Protocol

from tidegate.domain.errors import Refused

ROWS_AT_ONCE = 512


class _Column(Protocol):
    def to_pylist(self) -> list[object]: ...

    def cast(self, kind: object) -> "_Column": ...


class _Batch(Protocol):
    num_rows: int
    columns: list[_Column]


class _Schema(Protocol):
    names: list[str]

    def append(self, field: object) -> "_Schema": ...


class _File(Protocol):
    schema_arrow: _Schema

    def iter_batches(self, batch_size: int) -> Iterator[_Batch]: ...

    def close(self) -> None: ...


class _Writer(Protocol):
    def write_batch(self, batch: object) -> None: ...

    def close(self) -> None: ...


class _RecordBatches(Protocol):
    def from_arrays(self, arrays: Sequence[object], *, schema: _Schema) -> object: ...


class _Arrow(Protocol):
    RecordBatch: _RecordBatches
    ArrowException: type[Exception]

    def array(self, values: Sequence[object], *, type: object) -> object: ...  # noqa: A002 -- theirs

    def field(self, name: str, kind: object) -> object: ...

    def schema(self, fields: Sequence[object]) -> _Schema: ...

    def string(self) -> object: ...

    def int64(self) -> object: ...


class _ParquetModule(Protocol):
    def ParquetFile(self, path: Path) -> _File: ...  # noqa: N802 -- theirs

    def ParquetWriter(self, where: BinaryIO, schema: _Schema) -> _Writer: ...  # noqa: N802 -- theirs


def check_installed() -> None:
    """Refuse work that needs Parquet where pyarrow is missing.

    Raises:
        Refused: it is.
    """
    _modules()


def column_names(path: Path) -> list[str]:
    """Return the names of the columns.

    Raises:
        Refused: the file can't be read, or pyarrow is missing.
    """
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_rows(path: Path) -> Iterator[Mapping[str, object]]:
    """Yield the rows as dicts, some hundred of them in memory at a time.

    Raises:
        Refused: the file can't be read, or pyarrow is missing.
    """
    arrow, _ = _modules()
    with _opened(path) as file:
        names = file.schema_arrow.names
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            values = [_values(arrow, column) for column in batch.columns]
            for cells in zip(*values, strict=True):
                yield dict(zip(names, cells, strict=True))


def _values(arrow: _Arrow, column: _Column) -> list[object]:
    try:
        return column.to_pylist()
    except (ValueError, OverflowError):
        # Python has no value for it, such as an instant in nanoseconds; it has a text all the same.
        return column.cast(arrow.string()).to_pylist()


class ParquetWriter:
    """Writes rows of texts, with whole numbers in the columns that `integers` names."""

    def __init__(self, where: BinaryIO, names: Sequence[str], integers: frozenset[str]) -> None:
        arrow, module = _modules()
        self._arrow = arrow
        self._kinds = [arrow.int64() if name in integers else arrow.string() for name in names]
        fields = zip(names, self._kinds, strict=True)
        self._schema = arrow.schema([arrow.field(name, kind) for name, kind in fields])
        self._writer = module.ParquetWriter(where, self._schema)
        self._held: list[Sequence[object]] = []

    def write(self, cells: Sequence[object]) -> None:
        """Add one row."""
        self._held.append(cells)
        if len(self._held) >= ROWS_AT_ONCE:
            self._flush()

    def close(self) -> None:
        """Write what is left, and the end of the file."""
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        if self._held:
            values = zip(*self._held, strict=True)
            arrays = [
                self._arrow.array(column, type=kind)
                for column, kind in zip(values, self._kinds, strict=True)
            ]
            self._writer.write_batch(
                self._arrow.RecordBatch.from_arrays(arrays, schema=self._schema)
            )
            self._held = []


def extend(
    source: Path,
    where: BinaryIO,
    names: Sequence[str],
    integers: frozenset[str],
    cells: Iterator[Sequence[object]],
) -> Iterator[int]:
    """Write a copy of a file with further columns, whose types stay as they are.

    Yields how many rows were written, for every few of them.

    Raises:
        Refused: the file can't be read, or pyarrow is missing.
    """
    arrow, module = _modules()
    kinds = [arrow.int64() if name in integers else arrow.string() for name in names]
    with _opened(source) as file:
        schema = file.schema_arrow
        for name, kind in zip(names, kinds, strict=True):
            schema = schema.append(arrow.field(name, kind))
        writer = module.ParquetWriter(where, schema)
        for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
            added = zip(*(next(cells) for _ in range(batch.num_rows)), strict=True)
            arrays = [
                arrow.array(column, type=kind) for column, kind in zip(added, kinds, strict=True)
            ]
            writer.write_batch(
                arrow.RecordBatch.from_arrays([*batch.columns, *arrays], schema=schema)
            )
            yield batch.num_rows
        writer.close()


def _modules() -> tuple[_Arrow, _ParquetModule]:
    try:
        arrow: _Arrow = import_module("pyarrow")
        module: _ParquetModule = import_module("pyarrow.parquet")
    except ImportError as error:
        raise Refused(
            "Parquet needs pyarrow, which is not installed: pip install 'tidegate[parquet]'."
        ) from error
    return arrow, module


@contextmanager
def _opened(path: Path) -> Iterator[_File]:
    arrow, module = _modules()
    try:
        file = module.ParquetFile(path)
        try:
            yield file
        finally:
            file.close()
    except FileNotFoundError as error:
        raise Refused(f"There is no file {path}: check the name of the input.") from error
    except (OSError, arrow.ArrowException) as error:
        raise Refused(f"{path} can't be read as Parquet ({_first_line(error)}).") from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
