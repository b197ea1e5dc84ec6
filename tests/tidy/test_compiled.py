"""What is compiled keeps to what mypyc does as the interpreter does (record 13)."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# They raise what they have to say by themselves, or do not wait at their end.
SOUND_CONTEXTS = {"asyncio.timeout_at", "asyncio.TaskGroup"}
WAITS = (ast.Await, ast.AsyncFor, ast.AsyncWith)

REFUSED = [
    "async def f():\n try:\n  await g()\n except OSError:\n  await h()\n  raise",
    "async def f():\n try:\n  await g()\n finally:\n  await h()",
    "async def f():\n async with lock:\n  await g()",
    "class A(msgspec.Struct):\n a: int",
]


def hot() -> list[str]:
    """Return the modules that are compiled, as `setup.py` names them."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HOT":
            found = ast.literal_eval(node.value)
            assert isinstance(found, tuple)
            return list(found)
    raise AssertionError("nothing is compiled")


def troubles(source: str) -> Iterator[str]:
    """Yield what a module may not do: waiting while an error is being handled, and structs.

    A compiled coroutine shares the error that is being handled with all others: after a wait,
    `raise` may raise another one's. And msgspec can't read the types of a compiled struct.
    """
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Try():
                for part in (*node.handlers, *node.finalbody):
                    yield from (
                        f"line {inner.lineno} waits while an error is being handled"
                        for inner in ast.walk(part)
                        if isinstance(inner, WAITS)
                    )
            case ast.AsyncWith():
                for item in node.items:
                    made = item.context_expr
                    name = ast.unparse(made.func) if isinstance(made, ast.Call) else ""
                    if name not in SOUND_CONTEXTS:
                        yield f"line {node.lineno} may wait while an error is being handled"
            case ast.ClassDef() if any("Struct" in ast.unparse(base) for base in node.bases):
                yield f"line {node.lineno} is a struct"


def test_what_is_compiled_is_there() -> None:
    names = hot()
    assert names == sorted(names)
    for name in names:
        assert (ROOT / "src" / "tidegate" / f"{name}.py").is_file(), name
    assert "domain/retry" in names, "`is_compiled` asks this module in place of all"


@pytest.mark.parametrize("name", hot())
def test_nothing_is_written_that_would_not_be_the_same_compiled(name: str) -> None:
    source = (ROOT / "src" / "tidegate" / f"{name}.py").read_text()
    assert list(troubles(source)) == []


@pytest.mark.parametrize("source", REFUSED)
def test_what_would_not_be_the_same_is_found(source: str) -> None:
    assert len(list(troubles(source))) == 1
