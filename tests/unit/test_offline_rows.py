"""Rows of every file_format, and what is said of a row that can't be read."""

import os
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tidegate.domain.errors import Refused
from tidegate.offline import parquet
from tidegate.offline.job import FileFormat, file_format_of
from tidegate.offline.rows import COLUMNS_MAX, ROW_BYTES_MAX, pieces_of, read_columns, read_rows


def written(folder: Path, name: str, content: bytes) -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def values(path: Path) -> list[tuple[int, dict[str, object]]]:
    return [(row.number, dict(row.values)) for row in read_rows(path, file_format_of(path))]


def test_jsonl_rows_bear_the_numbers_of_their_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "in.jsonl", b'\xef\xbb\xbf{"a":1}\r\n\n{"b":"\xc3\xa9","a":null}')
    assert values(path) == [(1, {"a": 1}), (3, {"b": "é", "a": None})]
    assert read_columns(path, FileFormat.JSONL) == ["a", "b"]


def test_csv_rows_may_hold_newlines_and_quotes(tmp_path: Path) -> None:
    path = written(tmp_path, "in.CSV", b'\xef\xbb\xbfa,b\r\n"x\r\ny","say ""hi"""\r\n\r\n1,\r\n')
    assert values(path) == [(1, {"a": "x\r\ny", "b": 'say "hi"'}), (2, {"a": "1", "b": ""})]
    assert read_columns(path, FileFormat.CSV) == ["a", "b"]


def test_a_cell_may_be_as_large_as_a_row(tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", b"a\n" + b"x" * 1_000_000 + b"\n")
    assert len(str(values(path)[0][1]["a"])) == 1_000_000


def test_parquet_rows_come_as_python_values_or_as_text(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    columns = {"a": pa.array([1, None]), "at": pa.array([1, 2], pa.timestamp("ns"))}
    pq.write_table(pa.table(columns), path)
    (first, one), (second, two) = values(path)
    assert (first, one["a"], second, two["a"]) == (1, 1, 2, None)
    assert str(one["at"]).endswith("00:00:00.000000001")
    assert read_columns(path, FileFormat.PARQUET) == ["a", "at"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("in.jsonl", b'{"a":1}\n[1]\n', "line 2"),
        ("in.jsonl", b'{"a":1}\n\n{"a":NaN}\n', "line 3"),
        ("in.jsonl", b'{"a":"\xff"}\n', "line 1"),
        ("in.jsonl", b"[" * 100_000 + b"\n", "line 1"),
        ("in.jsonl", b'"' + b"x" * ROW_BYTES_MAX + b'"\n', "more than 8388608 bytes"),
        ("in.csv", b"a,b\n1,2\n1\n", "line 3 of"),
        ("in.csv", b"a,b\n1,2,3\n", "has 3, its header 2"),
        ("in.csv", b"a,b,a\n1,2,3\n", "column 'a' twice"),
        ("in.csv", b'a\n"x"y\n', "Not CSV: line 2"),
        ("in.csv", b"a\n\xff\n", "not UTF-8"),
        ("in.csv", "a\n1\n".encode("utf-16"), "not UTF-8"),
        ("in.csv", b"a\n" + b"x" * (ROW_BYTES_MAX + 1) + b"\n", "field larger"),
        ("in.parquet", b"malformed", "can't be read as Parquet"),
        ("in.parquet", b"", "can't be read as Parquet"),
    ],
)
def test_what_is_no_row_is_reported_by_its_place(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(Refused, match=said.replace("(", r"\(")) as refused:
        values(written(tmp_path, name, content))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["in.jsonl", "in.csv", "in.parquet"])
def test_a_missing_file_is_reported(tmp_path: Path, name: str) -> None:
    with pytest.raises(Refused, match="There is no file"):
        values(tmp_path / name)


def test_what_can_be_read_only_once_is_refused_unread(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for path in (pipe, Path("/dev/zero")):
        with pytest.raises(Refused, match="not a file: write it into a file first"):
            next(pieces_of(path))


def test_columns_have_a_bound(tmp_path: Path) -> None:
    names = [f"c{number}" for number in range(COLUMNS_MAX)]
    path = written(tmp_path, "in.csv", ",".join(names).encode() + b"\n")
    assert read_columns(path, FileFormat.CSV) == names
    lines = "".join(f'{{"c{number}":1}}\n' for number in range(COLUMNS_MAX + 1))
    with pytest.raises(Refused, match="more than 1000 columns"):
        read_columns(written(tmp_path, "in.jsonl", lines.encode()), FileFormat.JSONL)


def test_an_empty_table_has_no_rows_and_no_columns(tmp_path: Path) -> None:
    path = written(tmp_path, "in.csv", b"")
    assert (values(path), read_columns(path, FileFormat.CSV)) == ([], [])


def test_missing_pyarrow_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(Refused, match=r"pip install 'tidegate\[parquet\]'"):
        parquet.check_installed()
