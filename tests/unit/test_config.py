"""Settings come from a file, the environment and flags, and no name is taken on trust."""

import hashlib
import json
from pathlib import Path

import pytest

from tidegate.cli.config import MASK, example_text, rendered
from tidegate.config import Loaded, load, names
from tidegate.config.sources import FILE_BYTES_MAX
from tidegate.domain.errors import SettingsInvalid

URL = "http://127.0.0.1:8001"


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def lines(loaded: Loaded) -> str:
    return "\n".join(rendered(loaded))


def test_defaults_need_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    loaded = load(environment={})
    assert loaded.settings.server.host == "127.0.0.1"
    assert loaded.settings.server.port == 8000
    assert loaded.settings.server.observability_port == 8081
    assert loaded.file is None
    assert loaded.origins == {}


def test_flags_beat_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    file = written(tmp_path / "a.yaml", "server: {port: 1, observability_port: 2}\ndata_dir: f\n")
    environment = {"TIDEGATE_SERVER__PORT": "3", "TIDEGATE_SERVER__OBSERVABILITY_PORT": "4"}
    loaded = load(file=file, environment=environment, flags={"server.port": 5})
    assert loaded.settings.server.port == 5
    assert loaded.settings.server.observability_port == 4
    assert loaded.settings.data_dir == Path("f")
    assert loaded.origins == {
        "server.port": "flag",
        "server.observability_port": "environment TIDEGATE_SERVER__OBSERVABILITY_PORT",
        "data_dir": f"file {file}",
    }


def test_toml_and_yaml_say_the_same(tmp_path: Path) -> None:
    toml = written(tmp_path / "a.toml", f'[upstream]\nurl = "{URL}"\n[server]\nport = 9\n')
    yaml = written(tmp_path / "a.yaml", f"upstream:\n  url: {URL}\nserver:\n  port: 9\n")
    one, other = (load(file=path, environment={}).settings for path in (toml, yaml))
    assert one == other


def test_the_file_is_found_by_variable_and_by_its_usual_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path / "tidegate.yaml", "server: {port: 1}")
    other = written(tmp_path / "other.yaml", "server: {port: 2}")
    assert load(environment={}).settings.server.port == 1
    assert load(environment={"TIDEGATE_CONFIG": str(other)}).settings.server.port == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("procesor: {}", "unknown setting 'procesor' in .*: did you mean 'processor'?"),
        ("server: {prot: 1}", "unknown setting 'server.prot' in .*: did you mean 'port'?"),
        ("upstream: {url: u, zzz: 1}", r"unknown setting 'upstream\.zzz' in .*; known here: url"),
        (
            f"upstreams: {{m: {{url: {URL}, heders: {{}}}}}}",
            r"'upstreams\.m\.heders' in .*: did you mean 'headers'?",
        ),
        ("server: {port: many}", r"server\.port must be a whole number"),
        ("server: {port: 65536}", r"server\.port must be from 0"),
        ("[]", "must hold names and values"),
        ("a: [", "is not well-formed"),
        ("a: 2026-13-01", "a value does not have the form of its type"),
        ("a: !!timestamp x", "a value does not have the form of its type"),
        ("a: !!int x", "a value does not have the form of its type"),
        ("[" * 3_000, "nested too deeply"),
        ("upstream: {url: ftp://x}", "must begin with http or https"),
        ("server: {host: 0.0.0.0}", r"server\.host 0\.0\.0\.0 can be reached by other machines"),
        ("server: {port: 1, observability_port: 1}", "must differ"),
        ("server: {keys: ['']}", "Entry 1 of server.keys must hold"),
        ("server: {keys: ['a b c']}", "must hold a key"),
        ("server: {keys: ['a b/c']}", "names a tenant that can't be used"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message) as caught:
        load(file=written(tmp_path / "a.yaml", text), environment={})
    assert "\n" not in str(caught.value)


def test_a_file_in_toml_may_be_too_deep_as_well(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="nested too deeply"):
        load(file=written(tmp_path / "a.toml", "a = " + "[" * 3_000), environment={})
    with pytest.raises(SettingsInvalid, match="must be valid JSON"):
        load(environment={"TIDEGATE_SERVER__KEYS": "[" * 100_000})


@pytest.mark.parametrize(
    ("variable", "message"),
    [
        ("TIDEGATE_PROCESOR__RETRY", "'procesor' in the environment .TIDEGATE_PROCESOR__RETRY."),
        ("TIDEGATE_SERVER__PROT", "did you mean 'port'"),
        ("TIDEGATE_SERVER__PORT__X", r"unknown setting 'server\.port\.x'"),
    ],
)
def test_a_wrong_variable_is_refused(variable: str, message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        load(environment={variable: "1"})


def test_other_variables_are_none_of_our_business() -> None:
    assert load(environment={"PATH": "x", "TIDE": "y"}).origins == {}


def test_lists_and_groups_can_be_given_as_text() -> None:
    environment = {
        "TIDEGATE_SERVER__KEYS": "one, two",
        "TIDEGATE_UPSTREAMS": json.dumps({"org/Model.1": {"url": URL}}),
        "TIDEGATE_BATCH_API__EXTRA_ENDPOINTS": '["/v1/rerank"]',
    }
    settings = load(environment=environment).settings
    assert settings.server.keys == ("one", "two")
    assert settings.batch_api.extra_endpoints == ("/v1/rerank",)
    assert list(settings.upstreams) == ["org/Model.1"]


def test_text_that_is_not_json_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match=r"upstreams .* must be valid JSON"):
        load(environment={"TIDEGATE_UPSTREAMS": "{nope"})
    broken: dict[str, object] = {"upstream": None, "upstream.url": URL}
    with pytest.raises(SettingsInvalid, match="in a group that is set to null"):
        load(environment={}, flags=broken)


def test_a_name_inside_json_is_checked_too() -> None:
    with pytest.raises(SettingsInvalid, match="did you mean 'api_key'"):
        load(environment={"TIDEGATE_UPSTREAM": json.dumps({"url": URL, "apikey": "x"})})


def test_only_one_kind_of_upstream() -> None:
    flags: dict[str, object] = {"upstream.url": URL, "upstreams": {"m": {"url": URL}}}
    with pytest.raises(SettingsInvalid, match="Both upstream and upstreams"):
        load(environment={}, flags=flags)
    with pytest.raises(SettingsInvalid, match="No model server is configured"):
        load(environment={}).settings.require_upstream()
    load(environment={}, flags={"upstream.url": URL}).settings.require_upstream()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_may_be_open(host: str) -> None:
    assert load(environment={}, flags={"server.host": host}).settings.server.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "example.org", ""])
def test_other_addresses_need_keys_or_a_word(host: str) -> None:
    with pytest.raises(SettingsInvalid, match="--allow-open"):
        load(environment={}, flags={"server.host": host})
    load(environment={}, flags={"server.host": host, "server.allow_open": True})
    load(environment={}, flags={"server.host": host, "server.keys": ["k"]})


def test_keys_come_from_files_and_variables(tmp_path: Path) -> None:
    key = written(tmp_path / "key", "from-file\n")
    many = written(tmp_path / "keys", "one\n\ntwo\n")
    flags: dict[str, object] = {"upstream.url": URL, "server.keys_file": str(many)}
    of_file = load(environment={}, flags={**flags, "upstream.api_key_file": str(key)})
    of_variable = load(
        environment={"SECRET": "from-variable"}, flags={**flags, "upstream.api_key_env": "SECRET"}
    )
    assert of_file.settings.upstream is not None
    assert of_variable.settings.upstream is not None
    assert of_file.settings.upstream.api_key == "from-file"
    assert of_variable.settings.upstream.api_key == "from-variable"
    assert of_file.settings.server.keys == ("one", "two")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"upstream.api_key_env": "NOBODY"}, "NOBODY, which is not set"),
        ({"upstream.api_key_file": "/nonexistent/key"}, "can't be read"),
        ({"upstream.api_key": "a", "upstream.api_key_env": "B"}, "one of api_key"),
        ({"server.keys_file": "/dev/null"}, "holds no key"),
        ({"upstream.api_key_file": "/dev/null"}, "is empty"),
    ],
)
def test_a_missing_key_is_reported(flags: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        load(environment={}, flags={"upstream.url": URL, **flags})


def test_a_file_that_cannot_be_used_is_reported(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="can't be read: No such file"):
        load(file=tmp_path / "none.yaml", environment={})
    with pytest.raises(SettingsInvalid, match=r"must end in \.yaml"):
        load(file=written(tmp_path / "a.json", "{}"), environment={})
    fitting = written(tmp_path / "fits.yaml", "#" * FILE_BYTES_MAX)
    assert load(file=fitting, environment={}).origins == {}
    with pytest.raises(SettingsInvalid, match="larger than"):
        load(file=written(tmp_path / "big.yaml", "#" * (FILE_BYTES_MAX + 1)), environment={})


def test_a_key_may_name_its_tenant() -> None:
    server = load(environment={}, flags={"server.keys": ["k1", "k2 blue"]}).settings.server
    digest = hashlib.sha256(b"k2").hexdigest()
    assert sorted(server.tenants().values()) == ["blue", "default"]
    assert server.tenants()[digest] == "blue"


def test_shown_settings_hide_every_secret_and_show_their_origin() -> None:
    flags: dict[str, object] = {
        "upstream.url": URL,
        "upstream.api_key": "sk-topsecret",
        "upstream.headers": {"x-team-token": "topsecret"},
        "store.options": {"dsn": "password=topsecret", "servers": [{"token": "topsecret"}]},
        "server.keys": ["topsecret"],
    }
    text = lines(load(environment={"TIDEGATE_SERVER__PORT": "9"}, flags=flags))
    assert "topsecret" not in text
    assert f"  api_key: '{MASK}'  # flag" in text
    assert "  port: 9  # environment TIDEGATE_SERVER__PORT" in text
    assert "  host: 127.0.0.1  # default" in text
    assert "topsecret" not in repr(load(environment={}, flags=flags))


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    flags: dict[str, object] = {"upstreams": {"a/b": {"url": URL}}, "server.port": 9}
    first = load(environment={}, flags=flags)
    again = load(file=written(tmp_path / "shown.yaml", lines(first)), environment={})
    assert again.settings == first.settings


def test_the_example_is_valid_and_whole(tmp_path: Path) -> None:
    loaded = load(file=written(tmp_path / "example.yaml", example_text()), environment={})
    loaded.settings.require_upstream()
    assert lines(loaded)


def test_names_are_listed_with_their_groups() -> None:
    listed = [name for name, _ in names()]
    assert "server.port" in listed
    assert "upstreams.<model>.url" in listed
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize(
    ("memory", "reply", "fits"),
    [
        (2**28 + 16 * 2**25, 2**25, True),
        (2**28 + 16 * 2**25 - 1, 2**25, False),
        (2**28 + 16 * 2**23, 2**20, True),
        (2**28 + 16 * 2**23 - 1, 2**20, False),
    ],
)
def test_a_child_has_memory_for_the_largest_reply_and_line(
    memory: int, reply: int, *, fits: bool
) -> None:
    flags = {
        "upstream.url": "http://x",
        "upstream.limits.body_bytes_max": reply,
        "processor.sandbox.memory_bytes_max": memory,
    }
    if fits:
        assert (
            load(environment={}, flags=flags).settings.processor.sandbox.memory_bytes_max == memory
        )
    else:
        with pytest.raises(
            SettingsInvalid, match=r"processor\.sandbox\.memory_bytes_max .* at least"
        ):
            load(environment={}, flags=flags)
