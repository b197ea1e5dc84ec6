"""The batch core needs no router and no gateway of ours: any OpenAI-compatible server will do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "tidegate"
CORE = {
    *(
        "api",
        "blobs",
        "collector",
        "access",
        "application",
        "domain",
        "endpoints",
        "planning",
        "processor",
        "runtime",
        "sorting",
    ),
    *("http_server", "sandbox", "pubsub", "stores", "supervisor", "telemetry", "upstreams", "wire"),
}


def rooms_imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module == "tidegate":
            names = [f"tidegate.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        for name in names:
            first, _, rest = name.partition(".")
            if first == "tidegate" and rest:
                yield rest.partition(".")[0]


@pytest.mark.parametrize("room", sorted(CORE))
def test_the_core_imports_the_core_alone(room: str) -> None:
    paths = sorted((PACKAGE / room).rglob("*.py"))
    assert paths, f"the room {room} is gone"
    for path in paths:
        assert {*rooms_imported(path)} <= CORE | {"__version__"}, path


def test_an_import_of_another_room_is_found(tmp_path: Path) -> None:
    path = tmp_path / "room.py"
    path.write_text("import tidegate.router.pick\nfrom tidegate import gateway\nimport asyncio\n")
    assert list(rooms_imported(path)) == ["router", "gateway"]
