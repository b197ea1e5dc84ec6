"""The source package holds all that it is built with."""

import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
BUILD = """
import sys
target, name, *sys.path[:0] = sys.argv[1:]
print(__import__(name).build_sdist(target))
"""


def test_a_source_package_can_be_built_from(tmp_path: Path) -> None:
    """Whoever finds no wheel for their Python builds from it, with the backend that is in it."""
    system = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]
    tree = tmp_path / "tree"
    package = tree / "src" / "tidegate"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for folder in system["backend-path"]:
        shutil.copytree(ROOT / folder, tree / folder)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, str(tmp_path), system["build-backend"]]
        + system["backend-path"],
        cwd=tree,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    with tarfile.open(tmp_path / done.stdout.split()[-1]) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for folder in system["backend-path"]:
        assert f"{folder}/{system['build-backend']}.py" in inside
    assert {"pyproject.toml", "setup.py", "src/tidegate/__init__.py"} <= inside
