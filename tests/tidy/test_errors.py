"""The tree in the docstring of `domain.errors` is the tree of its classes."""

import re
from pathlib import Path

from tidegate.domain import errors

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^(?P<rails>[│├└─\s]*)(?P<name>[A-Z]\w+)(?:\s{2,}(?P<meaning>.+))?$")
RAIL_WIDTH = 4


def drawn() -> dict[str, str]:
    """Return each drawn error with the name of the one above it; the root has none."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = ROW.match(line)
        if match is None or (not match["rails"] and match["name"] != "TidegateError"):
            continue
        depth = len(match["rails"]) // RAIL_WIDTH
        path[depth:] = [match["name"]]
        parents[match["name"]] = path[depth - 1] if depth else ""
    return parents


def defined() -> dict[str, str]:
    classes = [item for item in vars(errors).values() if isinstance(item, type)]
    return {
        item.__name__: "" if item is errors.TidegateError else item.__bases__[0].__name__
        for item in classes
        if issubclass(item, errors.TidegateError)
    }


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    assert drawn() == defined()
    assert len(drawn()) > 10


def test_every_error_is_explained_in_the_docs() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert [name for name in defined() if f"`{name}`" not in page] == []


def codes() -> set[str]:
    """Return every code that can stand on a batch or in an error line."""
    package = ROOT / "src" / "tidegate"
    texts = [
        path.read_text()
        for room in ("processor", "planning", "endpoints", "wire")
        for path in (package / room).rglob("*.py")
    ]
    given = re.compile(
        r'(?:code=|_InvalidLine\(\s*)"([a-z_]+)"|return "((?:upstream|reply)_[a-z_]+)"'
    )
    ended = re.compile(r'^    "(batch_[a-z]+)",$', re.MULTILINE)
    found = {name for text in texts for pair in given.findall(text) for name in pair if name}
    return found | {name for text in texts for name in ended.findall(text)}


def test_every_code_of_a_batch_or_line_is_explained_in_the_docs() -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    assert {"batch_expired", "invalid_url", "upstream_timeout", "empty_file"} <= codes()
    assert [code for code in sorted(codes()) if f"`{code}`" not in page] == []


def test_every_error_says_what_it_means() -> None:
    for item in vars(errors).values():
        if isinstance(item, type) and issubclass(item, errors.TidegateError):
            assert item.__doc__, item
            assert item.__doc__.splitlines()[0].endswith((".", "!")), item
