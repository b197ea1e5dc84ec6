"""How commands find their server: flags win over the variables of OpenAI's SDKs."""

from pathlib import Path

import pytest

from tidegate.client.objects import ID_CHARACTERS_MAX, path_segment
from tidegate.client.settings import BASE_URL_DEFAULT, ClientSettings
from tidegate.config.client import load_client_settings
from tidegate.domain.errors import SettingsInvalid


def test_without_anything_it_is_the_server_of_this_machine() -> None:
    access = load_client_settings(environment={})
    assert (access.base_url, access.api_key, access.proxies) == (BASE_URL_DEFAULT, None, False)


def test_the_variables_of_openais_sdks_are_heeded_and_flags_win(tmp_path: Path) -> None:
    environment = {"OPENAI_BASE_URL": "https://api.example.org/v1", "OPENAI_API_KEY": " k1 "}
    access = load_client_settings(environment=environment)
    assert (access.root, access.api_key, access.proxies) == (
        "https://api.example.org/v1",
        "k1",
        True,
    )
    keys = tmp_path / "key"
    keys.write_text("k2\n")
    flagged = load_client_settings(
        base_url="http://localhost:9", api_key_file=keys, environment=environment
    )
    assert (flagged.root, flagged.api_key, flagged.proxies) == (
        "http://localhost:9/v1",
        "k2",
        False,
    )
    assert "k2" not in repr(flagged)


def test_variables_that_are_empty_count_as_absent() -> None:
    access = load_client_settings(environment={"OPENAI_BASE_URL": " ", "OPENAI_API_KEY": ""})
    assert (access.base_url, access.api_key) == (BASE_URL_DEFAULT, None)


@pytest.mark.parametrize(
    ("url", "root"),
    [
        ("http://h", "http://h/v1"),
        ("http://h:8000/", "http://h:8000/v1"),
        ("http://h/v1/", "http://h/v1"),
        ("https://h/prefix/openai", "https://h/prefix/openai"),
        ("http://[::1]:8000", "http://[::1]:8000/v1"),
    ],
)
def test_a_base_url_without_a_path_gets_one(url: str, root: str) -> None:
    assert ClientSettings(base_url=url).root == root


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("h:8000", "must begin with http"),
        ("ftp://h", "must begin with http"),
        ("http://", "must begin with http"),
        ("http://h:port/v1", "is not a URL"),
        ("http://h/ v1", "has a blank"),
        ("http://h\x1b/", "control character"),
        ("http://hé/", "outside ASCII"),
        ("http://user:pass@h/", "user or password"),
        ("http://h/v1?x=1", "'?' or '#'"),
    ],
)
def test_what_is_no_base_url_is_refused_in_words(url: str, words: str) -> None:
    with pytest.raises(SettingsInvalid) as refused:
        ClientSettings(base_url=url)
    assert words in str(refused.value)
    assert "pass@" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "two words", "kéy", "line\nfeed"])
def test_what_is_no_key_is_refused_without_being_shown(key: str) -> None:
    with pytest.raises(SettingsInvalid, match="one word of printable ASCII") as refused:
        ClientSettings(api_key=key)
    assert not key or key not in str(refused.value)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("inf"), float("nan")])
def test_a_time_out_must_be_a_time(seconds: float) -> None:
    with pytest.raises(SettingsInvalid, match="--timeout"):
        ClientSettings(timeout_seconds=seconds)


def test_an_id_becomes_one_step_of_a_path() -> None:
    assert path_segment("batch_1") == "batch_1"
    assert path_segment("a/../b?c#d e") == "a%2F..%2Fb%3Fc%23d%20e"
    assert len(path_segment("x" * ID_CHARACTERS_MAX)) == ID_CHARACTERS_MAX


@pytest.mark.parametrize("identity", ["", ".", "..", "a\nb", "x" * (ID_CHARACTERS_MAX + 1)])
def test_what_can_be_no_id_is_refused(identity: str) -> None:
    with pytest.raises(SettingsInvalid, match="copy it from a list"):
        path_segment(identity)
