"""What users build from: the source package, and wheels where nothing can be compiled."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
SYSTEM = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
BUILD = """
import os, sys
target, name, what, wish, *sys.path[:0] = sys.argv[1:]
os.environ["TIDEGATE_COMPILE"] = wish
sys.modules["mypyc"] = None
print(getattr(__import__(name), what)(target))
"""


def build(tmp_path: Path, what: str, wish: str = "") -> subprocess.CompletedProcess[str]:
    """Build a package of that name with nothing in it, where there is no mypyc."""
    tree = tmp_path / "tree"
    package = tree / "src" / "tidegate"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for folder in SYSTEM["backend-path"]:
        shutil.copytree(ROOT / folder, tree / folder)
    given = [str(tmp_path), SYSTEM["build-backend"], what, wish, *SYSTEM["backend-path"]]
    return subprocess.run(
        [sys.executable, "-c", BUILD, *given],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_source_package_can_be_built_from(tmp_path: Path) -> None:
    """A user who finds no wheel for their Python builds from it, with the backend in it."""
    done = build(tmp_path, "build_sdist")
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.split()[-1]) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for folder in SYSTEM["backend-path"]:
        assert f"{folder}/{SYSTEM['build-backend']}.py" in inside
    assert {"pyproject.toml", "setup.py", "src/tidegate/__init__.py"} <= inside


def test_a_wheel_is_built_where_nothing_can_be_compiled(tmp_path: Path) -> None:
    done = build(tmp_path, "build_wheel")
    assert done.returncode == 0, done.stderr
    assert "install mypy. It is installed as it is" in done.stdout
    assert done.stdout.split()[-1].endswith("-py3-none-any.whl")


def test_required_compilation_reports_what_is_missing(tmp_path: Path) -> None:
    done = build(tmp_path, "build_wheel", wish="1")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith(": install mypy.")
    assert not list(tmp_path.glob("*.whl"))
