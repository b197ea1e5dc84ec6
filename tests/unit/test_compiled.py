"""What is said of the hot path is so, for the sources and for what `./run compiled` builds."""

import sys
from importlib.machinery import EXTENSION_SUFFIXES, SOURCE_SUFFIXES

import pytest

from tidegate.runtime import limiter
from tidegate.runtime.compiled import is_compiled, told
from tidegate.testing.commands import run_to_end


def test_a_module_in_c_is_told_from_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limiter, "__file__", f"limiter{SOURCE_SUFFIXES[0]}")
    assert not is_compiled()
    assert told() == "hot path interpreted"
    monkeypatch.setattr(limiter, "__file__", f"limiter{EXTENSION_SUFFIXES[0]}")
    assert is_compiled()
    assert told() == "hot path compiled"


def test_it_is_told_with_the_version() -> None:
    done = run_to_end("version")
    assert done.stdout.endswith(f"{sys.version.split()[0]}, {told()}\n")
