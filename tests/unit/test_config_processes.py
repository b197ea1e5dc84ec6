"""Settings for several processes: how many, what they can share, and how they are handed over."""

from pathlib import Path

import pytest

from tidegate.config import (
    Settings,
    check_processing,
    check_serving,
    load,
    settings_from_json,
    settings_to_json,
)
from tidegate.domain.errors import SettingsInvalid

URL = "http://127.0.0.1:8001"


def settings(folder: Path, **flags: object) -> Settings:
    base: dict[str, object] = {"data_dir": str(folder / "data"), "upstream.url": URL}
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load(environment={}, flags={**base, **named}).settings


@pytest.mark.parametrize(("processors", "fits"), [(-1, False), (0, True), (64, True), (65, False)])
def test_the_number_of_processors_is_bounded(
    tmp_path: Path, processors: int, *, fits: bool
) -> None:
    if fits:
        assert settings(tmp_path, processors=processors).processors == processors
    else:
        with pytest.raises(SettingsInvalid, match=r"^processors must be from 0 .* to 64"):
            settings(tmp_path, processors=processors)


@pytest.mark.parametrize("in_memory", [("blobs__kind",), ("store__kind", "blobs__kind")])
def test_what_lies_in_memory_is_for_one_process(tmp_path: Path, in_memory: tuple[str, ...]) -> None:
    kinds: dict[str, object] = dict.fromkeys(in_memory, "memory")
    check_serving(settings(tmp_path, **kinds))
    for processors in (0, 2):
        several = settings(tmp_path, processors=processors, **kinds)
        with pytest.raises(SettingsInvalid, match=r"set store\.kind to sqlite"):
            check_serving(several)
    with pytest.raises(SettingsInvalid, match=r"set store\.kind to sqlite"):
        check_processing(settings(tmp_path, **kinds))
    check_processing(settings(tmp_path))


def test_settings_are_handed_over_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, keys = tmp_path / "key", tmp_path / "keys"
    key.write_text("sk-upstream\n")
    keys.write_text("sk-one\nsk-two blue\n")
    given = settings(
        tmp_path,
        upstream__api_key_file=str(key),
        upstream__headers={"x-team": "tide"},
        upstream__concurrency__max="64",
        server__keys_file=str(keys),
        processors=3,
        batch_api__batch_file_expiry_seconds=None,
        batch_api__extra_endpoints="/v1/rerank",
        logs__format="json",
    )
    text = settings_to_json(given)
    assert "\n" not in text
    key.unlink()
    keys.unlink()
    monkeypatch.setenv("TIDEGATE_PROCESSORS", "9")
    assert settings_from_json(text) == given
    assert settings_from_json(text).server.tenants() == given.server.tenants()


def test_settings_for_each_model_are_handed_over(tmp_path: Path) -> None:
    given = load(environment={}, flags={"upstreams": {"a/b": {"url": URL}}}).settings
    assert settings_from_json(settings_to_json(given)) == given


@pytest.mark.parametrize("text", ["", "[]", "{", '{"processors": "many"}', '{"data_dir": 3}'])
def test_nothing_else_is_taken_over(text: str) -> None:
    with pytest.raises(SettingsInvalid):
        settings_from_json(text)
