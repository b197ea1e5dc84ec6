"""The keys of clients: what a file of them may hold, and that no message gives one away."""

from pathlib import Path

import pytest

from tidegate.config import Settings, load
from tidegate.domain.errors import SettingsInvalid

SECRET = "sk-topsecret"


def settings_with(path: Path, data: bytes) -> Settings:
    path.write_bytes(data)
    return load(environment={}, flags={"server.keys_file": str(path)}).settings


@pytest.mark.parametrize(
    "data",
    [
        b"# production\n\n  # more\none\ntwo blue\n",
        b"\xef\xbb\xbf# production\r\none\r\n\r\ntwo blue",
        b"\xef\xbb\xbfone\n   \n#two\ntwo blue\n# production",
    ],
)
def test_comments_blank_lines_and_a_byte_order_mark_are_no_keys(
    tmp_path: Path, data: bytes
) -> None:
    settings = settings_with(tmp_path / "keys", data)
    assert settings.server.keys == ("one", "two blue")
    assert sorted(settings.server.tenants().values()) == ["blue", "default"]


def test_a_key_file_of_comments_alone_allows_no_access(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="holds no key"):
        settings_with(tmp_path / "keys", b"# production\n\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (f"{SECRET} blue green", "must hold a key"),
        (f"{SECRET}\u00e9", "must hold a key"),
        (f"blue {SECRET}/x", "names a tenant that can't be used"),
        (f"one {SECRET}", "holds the same key as Line 2 of"),
    ],
)
def test_a_wrong_line_is_reported_by_number_alone(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(SettingsInvalid, match=f"Line 4 of the key file .* ?{message}") as caught:
        settings_with(tmp_path / "keys", f"# first\none\n\n{line}\n".encode())
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [[SECRET, SECRET], [SECRET, f"{SECRET} blue"], [f"{SECRET} blue", f"{SECRET} green"]],
    ids=["same", "one-tenant", "two-tenants"],
)
def test_the_same_key_twice_is_refused(keys: list[str]) -> None:
    with pytest.raises(SettingsInvalid, match="holds the same key as Entry 1") as caught:
        load(environment={}, flags={"server.keys": keys})
    assert SECRET not in str(caught.value)


def test_a_file_that_is_not_text_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="it is not UTF-8"):
        settings_with(tmp_path / "keys", b"\xff\xfe\x00")


def test_a_byte_order_mark_is_no_part_of_the_key_of_a_model_server(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"\xef\xbb\xbfsk-1\r\n")
    flags: dict[str, object] = {"upstream.url": "http://x", "upstream.api_key_file": str(path)}
    upstream = load(environment={}, flags=flags).settings.upstream
    assert upstream is not None
    assert upstream.api_key == "sk-1"
