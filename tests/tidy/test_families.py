"""Every family of back-ends has an interface, one in memory, and one suite that all pass."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "tidegate"
FAMILIES = ("blobs", "pubsub", "stores", "upstreams")


def test_every_plural_folder_is_listed_here() -> None:
    plural = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name.endswith("s")}
    assert plural - {"access", "endpoints"} == {*FAMILIES} - {"pubsub"}, "these two are rooms"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_has_its_interface_and_one_in_memory(family: str) -> None:
    assert (PACKAGE / family / "base.py").is_file()
    assert any((PACKAGE / family / name).is_file() for name in ("memory.py", "memory/store.py"))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_contract_suite_runs_every_back_end(family: str) -> None:
    suites = sorted((ROOT / "tests" / "contract").glob(f"test_{family}*.py"))
    suites += sorted((ROOT / "tests" / "contract" / family).glob("test_*.py"))
    kit = sorted((ROOT / "tests" / "contract").rglob("conftest.py"))
    assert suites, f"tests/contract has no suite for {family}"
    text = "".join(path.read_text() for path in suites + kit)
    for name in back_ends(family):
        assert f"tidegate.{family}.{name}" in text, f"no contract suite names {family}.{name}"


def back_ends(family: str) -> list[str]:
    """Return the modules or packages that define a class for the port of their family."""
    port = {"blobs": "BlobStore", "pubsub": "PubSub", "stores": "Store", "upstreams": "Upstream"}
    found = []
    for path in sorted((PACKAGE / family).iterdir()):
        texts = [path] if path.suffix == ".py" else sorted(path.glob("*.py"))
        made = re.compile(rf"^class .*[( ]{port[family]}\)", re.MULTILINE)
        if any(made.search(text.read_text()) for text in texts):
            found.append(path.stem)
    return found


def test_back_ends_are_found() -> None:
    assert "memory" in back_ends("pubsub")
    assert {"memory", "sqlite"} <= set(back_ends("stores"))
