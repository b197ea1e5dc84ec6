"""Docstrings, comments, messages and docs use plain technical words (STYLE, "Words and prose")."""

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = ("src", "testkit", "tests", "bench", "examples", "tools", "setup.py")
TEXT = ("docs", "README.md", "CHANGELOG.md", "run", ".ci/run", "pyproject.toml", "src")
OTHER = {"__pycache__", "tidegate.egg-info"}
TEXT_SUFFIXES = {"", ".md", ".yaml", ".sql", ".toml"}

# What is found, and what to write instead. Capitals do not matter.
WORDS = {
    r"(tells?|told|telling)": "report, show, give",
    r"(hears?|heard)": "record, receive, handle",
    r"mend(s|ed|ing)?": "fix, repair",
    r"anew": "again, from the start",
    r"who(so)?ever|whomever|whatever": "name the actor or the thing",
    r"for ever": "indefinitely, permanently",
    r"so many": "at most N, this many",
    r"say whether": "return whether",
    r"(bury|buried|mourn|bereft|bereaved|condemned?)": "name what happens",
    r"insists?": "retry, require",
    r"(doors?|towers?|keepers?|thief|mortal|valves?)": "name the thing",
    r"rubbish": "malformed input",
    r"strange(rs?)?": "unknown",
    r"the living": "members",
    r"clos(e|es|ing) (the|its|their) books": "finalize",
    r"lies? (ready|there|here)": "is",
    r"as good as": "nearly",
}
PATTERN = re.compile(r"\b(" + "|".join(f"(?:{word})" for word in WORDS) + r")\b", re.IGNORECASE)
CLAUSE = re.compile(r"(?:^|[.;:] )Where [^,.?]+, ", re.MULTILINE)


def pieces(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the words of a file with their line: of Python only strings and comments."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        # Names in code spans are what they are.
        lines = re.sub(r"`[^`\n]*`", "", text).splitlines()
        yield from enumerate(lines, 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in {tokenize.STRING, tokenize.COMMENT}:
            first = token.start[0]
            yield from ((first + n, line) for n, line in enumerate(token.string.splitlines()))


def files() -> list[Path]:
    python = [path for name in CODE for path in below(name) if path.suffix == ".py"]
    other = [path for name in TEXT for path in below(name) if path.suffix in TEXT_SUFFIXES]
    return sorted(path for path in {*python, *other} if path != Path(__file__))


def below(name: str) -> list[Path]:
    place = ROOT / name
    found = [place] if place.is_file() else [path for path in place.rglob("*") if path.is_file()]
    return [path for path in found if not OTHER & {*path.parts}]


def advice(word: str) -> str:
    return next(say for found, say in WORDS.items() if re.fullmatch(found, word, re.IGNORECASE))


def complaints(path: Path) -> Iterator[str]:
    for number, line in pieces(path):
        for match in PATTERN.finditer(line):
            yield f"{path.relative_to(ROOT)}:{number}: '{match[0]}': {advice(match[0])}"
        if CLAUSE.search(line.lstrip(' "#*>|-')):
            yield f"{path.relative_to(ROOT)}:{number}: 'Where': if, when"


def test_words_are_plain() -> None:
    found = [complaint for path in files() for complaint in complaints(path)]
    assert found == [], f"{len(found)} words:\n" + "\n".join(found[:200])


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("# It is " + "told anew.", 2),
        ("# Where" + " it fails, it is tried again.", 1),
        ("# Where is it?", 0),
        ("told = mended", 0),
        ('"""Hear' + ' that it ended."""', 1),
    ],
)
def test_the_list_finds_what_it_bans(line: str, count: int, tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(line + "\n")
    found = [match for _, text in pieces(path) for match in PATTERN.finditer(text)]
    clauses = [text for _, text in pieces(path) if CLAUSE.search(text.lstrip(' "#*>|-'))]
    assert len(found) + len(clauses) == count
