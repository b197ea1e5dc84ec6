"""Files and functions stay small enough to be read in one go."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "tests", "examples", "bench")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
DECISION_LINES_MAX = 40

# What is longer for now, with its exact length: an entry may only shrink, and then it goes.
LONGER_FILES: dict[str, int] = {}
LONGER_FUNCTIONS: dict[str, int] = {}


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            yield f"{path.relative_to(ROOT)}:{node.name}", lines


def judge(found: dict[str, int], allowed: dict[str, int], bound: int) -> list[str]:
    """Return a complaint for each size above its bound, and for each allowance that is too wide."""
    complaints = [
        f"{name} has {size} lines, {allowed.get(name, bound)} are allowed"
        for name, size in found.items()
        if size > allowed.get(name, bound)
    ]
    for name, size in allowed.items():
        if found.get(name, 0) < size:
            complaints.append(f"{name} shrank to {found.get(name, 0)}: lower or drop its entry")
    return complaints


def test_files_are_short() -> None:
    found = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert judge(found, LONGER_FILES, FILE_LINES_MAX) == []


def test_functions_are_short() -> None:
    found: dict[str, int] = {}
    for path in sources():
        for name, lines in functions(path):
            found[name] = max(lines, found.get(name, 0))
    assert judge(found, LONGER_FUNCTIONS, FUNCTION_LINES_MAX) == []


def test_decision_records_are_short_and_numbered_once() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [path.name[:4] for path in records]
    assert numbers == [f"{number:04d}" for number in range(1, len(records) + 1)]
    for path in records:
        assert len(path.read_text().splitlines()) <= DECISION_LINES_MAX, path.name


@pytest.mark.parametrize(
    ("found", "allowed", "complaints"),
    [
        ({"a": 10}, {}, 0),
        ({"a": 11}, {}, 1),
        ({"a": 15}, {"a": 15}, 0),
        ({"a": 16}, {"a": 15}, 1),
        ({"a": 14}, {"a": 15}, 1),
        ({}, {"a": 15}, 1),
    ],
)
def test_the_ratchet_only_turns_one_way(
    found: dict[str, int], allowed: dict[str, int], complaints: int
) -> None:
    assert len(judge(found, allowed, 10)) == complaints
