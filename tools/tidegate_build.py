"""The build backend: setuptools', which also asks for what compiling the hot path needs.

mypyc reads the types of the packages that Tidegate stands on, so they are there when a wheel is
built. An editable install compiles nothing and asks for nothing more.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    build_wheel,
    get_requires_for_build_editable,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]


def get_requires_for_build_wheel(
    config_settings: Mapping[str, str | list[str] | None] | None = None,
) -> list[str]:
    """Return what has to be installed to build a wheel."""
    needed = build_meta.get_requires_for_build_wheel(config_settings)
    if os.environ.get("TIDEGATE_COMPILE") == "0":
        return needed
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    compilers = [
        name for name in project["optional-dependencies"]["dev"] if name.startswith("mypy==")
    ]
    return [*needed, *compilers, *project["dependencies"]]
