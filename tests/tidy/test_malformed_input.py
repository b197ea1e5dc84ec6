"""Every kind of malformed input has a row in its page of docs, and every row a test that exists."""

import ast
import re
from pathlib import Path

from testkit.fuzz.__main__ import TARGETS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "malformed-input.md"
ROW = re.compile(r"^\| ([^|]+) \| [^|]+ \| `([\w/.]+)::(\w+)` \|$", re.MULTILINE)
TABLE_ROW = re.compile(r"^\| (?!input |target |---|`\w+` \|)", re.MULTILINE)
NAMED = {
    "empty file", "BOM", "CRLF", "blank lines", "last line without newline", "UTF-16",
    "gzip in disguise", "NaN", "huge integers", "lone surrogates", "U+2028",
    "a 200 MB single line", "100,000-deep JSON", "duplicate keys", "duplicate custom_ids",
    "control characters in custom_ids", "`stream: true`", "wrong method", "wrong url",
    "missing body", "missing model", "50,001 lines", "wrong purpose", "multipart parts missing",
    "multipart parts in any order", "a 10,000-part multipart", "client gone in mid-upload",
    "slow client", "a client that never reads its reply", "disk full in mid-upload", "unknown ids",
    "limits 0 and 101", "unknown `after`", "metadata over its bounds", "wrong types everywhere",
    "a body over the limit", "Content-Encoding", "two Host headers", "1 MB of headers",
    "truncated body", "not JSON", "200 with an error inside", "50 MB reply", "endless headers",
    "reset", "silence", "a byte a second", "a reply longer than its length",
    "an answer to another request",
}  # fmt: skip


def missing_tests(text: str) -> list[str]:
    """Return each test that a row names and that does not exist."""
    return [f"{path}::{name}" for _, path, name in ROW.findall(text) if name not in functions(path)]


def functions(path: str) -> set[str]:
    file = ROOT / path
    if not file.is_file():
        return set()
    nodes = ast.walk(ast.parse(file.read_text()))
    return {it.name for it in nodes if isinstance(it, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_named_input_has_a_row() -> None:
    assert NAMED - {name for name, _, _ in ROW.findall(PAGE.read_text())} == set()


def test_every_row_names_a_test_that_exists() -> None:
    text = PAGE.read_text()
    rows = ROW.findall(text)
    assert len(rows) == len(TABLE_ROW.findall(text)), "a row without a test"
    assert missing_tests(text) == []


def test_a_test_that_does_not_exist_is_found() -> None:
    text = (
        "| a | b | `tests/tidy/test_malformed_input.py::test_nothing` |\n"
        "| a | b | `tests/tidy/nowhere.py::test_nothing` |\n"
    )
    assert len(missing_tests(text)) == 2


def test_every_fuzzed_target_is_documented() -> None:
    text = PAGE.read_text()
    assert [it.name for it in TARGETS if f"\n| `{it.name}` | " not in text] == []
