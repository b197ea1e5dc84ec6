"""SQL kept as data: the parser, and that each statement is used and each used one exists."""

import re
from pathlib import Path

import pytest

import tidegate.stores.sqlite
from tidegate.stores import sql

FOLDER = Path(tidegate.stores.sqlite.__file__).parent
SUBJECTS = sorted(path.stem for path in FOLDER.glob("*.sql"))


def test_statements_stand_under_their_names() -> None:
    text = "\n-- one --\nSELECT 1;\n\n-- two_b --\n-- A remark.\nSELECT 2;\n"
    assert sql.parse(text) == {"one": "SELECT 1;", "two_b": "-- A remark.\nSELECT 2;"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SELECT 1;\n-- one --\nSELECT 1;", "before the first"),
        ("-- one --\nSELECT 1;\n-- one --\nSELECT 2;", "called 'one'"),
        ("-- one --\n\n-- two --\nSELECT 2;", "'one' is empty"),
    ],
)
def test_a_file_that_is_not_clear_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sql.parse(text)


@pytest.mark.parametrize("subject", SUBJECTS)
def test_every_statement_is_used_and_every_used_one_exists(subject: str) -> None:
    statements = set(sql.load("tidegate.stores.sqlite", f"{subject}.sql"))
    source = (FOLDER / f"{subject}.py").read_text(encoding="utf-8")
    used = set(re.findall(r'(?<![\w.])SQL\["([a-z_]+)"\]', source))
    if subject == "connection":
        used |= {"write_pulse", "read_pulse"}  # `check` of store.py sends these.
    assert used == statements
