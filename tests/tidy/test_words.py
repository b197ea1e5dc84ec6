"""What may not be written anywhere, and names that say nothing."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("src", "tests", "examples", "bench")
TEXT = (*CODE, "docs", ".ci", "run", "README.md", "CHANGELOG.md", "pyproject.toml")
SUFFIXES = {".py", ".md", ".toml", ".yaml", ".sql", ".jsonl", ""}

EMPTY_NAMES = {"utils", "util", "common", "helpers", "helper", "manager", "core", "types", "misc"}

# Written in pieces, so that this file does not find itself.
BANNED_CODE = {
    "mock" + "s: use a fake that keeps the contract": r"\bunittest[.]mock\b|\bfrom unittest\b",
    "work left lying": r"\b(TODO|FIXME|XXX|HACK)\b",
    "a test that does not run": r"pytest[.]skip\(|mark[.]skip|mark[.]xfail|pytest[.]xfail\(",
    "a lint exception without a code": r"#\s*noqa(?!:)|#\s*type:\s*ignore(?!\[)",
    "an import of the standard sqlite3": r"^\s*(import|from) sqlite3\b",
}
BANNED_TEXT = {"a path of one machine": r"(?<![\w.])/(root|work)/"}


def files(folders: tuple[str, ...]) -> list[Path]:
    found: list[Path] = []
    for name in folders:
        path = ROOT / name
        found += [path] if path.is_file() else path.rglob("*")
    return sorted(
        path
        for path in found
        if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts
    )


def hits(pattern: str, text: str) -> list[str]:
    found = re.compile(pattern, re.MULTILINE)
    return [line.strip() for line in text.splitlines() if found.search(line)]


@pytest.mark.parametrize("reason", sorted(BANNED_CODE))
def test_code_is_free_of(reason: str) -> None:
    for path in files(CODE):
        if path != Path(__file__) and path.suffix == ".py":
            assert hits(BANNED_CODE[reason], path.read_text()) == [], path


@pytest.mark.parametrize("reason", sorted(BANNED_TEXT))
def test_text_is_free_of(reason: str) -> None:
    for path in files(TEXT):
        if path != Path(__file__):
            assert hits(BANNED_TEXT[reason], path.read_text()) == [], path


def test_files_are_named_for_what_they_hold() -> None:
    for path in files(CODE):
        parts = {*path.relative_to(ROOT).parts[:-1], path.stem}
        assert not parts & EMPTY_NAMES, path


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("work left lying", "# TO" + "DO: later"),
        ("a test that does not run", "@pytest.mark." + "skip"),
        ("a lint exception without a code", "x = 1  # no" + "qa"),
        ("an import of the standard sqlite3", "import sqlite" + "3"),
    ],
)
def test_the_patterns_find_what_they_ban(reason: str, line: str) -> None:
    assert hits(BANNED_CODE[reason], line) == [line]
