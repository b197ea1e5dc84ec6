"""Files and functions stay small enough to be read in one go."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tidegate"
FOLDERS = ("src", "testkit", "tests", "examples", "bench")
FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
DECISION_LINES_MAX = 40
ROOM_ENTRIES_MAX = 15
SHARED_NAMES_MAX = 15


def sources() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            lines = node.end_lineno - node.lineno + 1
            yield f"{path.relative_to(ROOT)}:{node.name}", lines


def test_files_are_short() -> None:
    found = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert {name: size for name, size in found.items() if size > FILE_LINES_MAX} == {}


def test_functions_are_short() -> None:
    found = [item for path in sources() for item in functions(path)]
    assert [item for item in found if item[1] > FUNCTION_LINES_MAX] == []


def test_a_room_has_space() -> None:
    crowded = {}
    for folder in {path.parent for path in PACKAGE.rglob("*.py")}:
        room = folder.relative_to(PACKAGE).parts
        if room[:1] in {("cli",), ("simulator",), ("testing",)}:
            continue
        entries = [
            path.name
            for path in folder.iterdir()
            if path.suffix != ".sql" and not path.name.startswith("__")
        ]
        if room and len(entries) > ROOM_ENTRIES_MAX:
            crowded["/".join(room)] = len(entries)
    assert crowded == {}


def test_few_public_classes_share_a_name() -> None:
    names: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        if path.relative_to(PACKAGE).parts[0] not in {"simulator", "testing"}:
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    names.setdefault(node.name, []).append(str(path.relative_to(PACKAGE)))
    shared = {name: paths for name, paths in names.items() if len(paths) > 1}
    assert len(shared) <= SHARED_NAMES_MAX, shared
    for name, paths in shared.items():
        rooms = [path.rpartition("/")[0] for path in paths]
        assert name == "Settings" or len(rooms) == len(set(rooms)), (name, paths)


def test_decision_records_are_short_and_numbered_once() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    numbers = [path.name[:4] for path in records]
    assert numbers == [f"{number:04d}" for number in range(1, len(records) + 1)]
    for path in records:
        assert len(path.read_text().splitlines()) <= DECISION_LINES_MAX, path.name
