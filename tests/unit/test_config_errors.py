"""A wrong setting is named by its whole name, in words that say what to write."""

import json
from pathlib import Path

import pytest

from tidegate.config import load
from tidegate.domain.errors import SettingsInvalid

URL = "http://127.0.0.1:8001"
FLAGS: dict[str, object] = {"upstream.url": URL}


def refusal(file: Path | None = None, **sources: dict[str, object]) -> str:
    environment = {name: str(value) for name, value in sources.get("environment", {}).items()}
    with pytest.raises(SettingsInvalid) as caught:
        load(file=file, environment=environment, flags=sources.get("flags"))
    return str(caught.value)


def in_file(path: Path, text: str, **sources: dict[str, object]) -> str:
    path.write_text(text)
    return refusal(path, **sources)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("upstream.timeouts.connect_seconds", "0", "upstream.timeouts.connect_seconds must be a"),
        ("upstream.limits.connections_max", "0", "upstream.limits.connections_max must be a whole"),
        ("upstream.tls.key_file", "k", "upstream.tls.key_file is given without"),
        ("upstream.concurrency.min", "0", "upstream.concurrency needs 1 <= min"),
        ("upstream.backoff.seconds_min", "0", "upstream.backoff needs"),
        ("upstream.url", "ftp://x", "upstream: The URL of the upstream must begin with"),
        ("processor.claims.poll_seconds", "9", "processor.claims.poll_seconds must be at most"),
        ("api.limits.headers_max", "0", "api.limits.headers_max must be above 0."),
        ("server.timeouts.keep_alive_seconds", "0", "server.timeouts: Server timeouts must"),
        ("server.port", "-1", "server.port must be from 0"),
    ],
)
def test_a_complaint_begins_with_the_whole_name(name: str, value: str, message: str) -> None:
    assert refusal(flags={**FLAGS, name: value}).startswith(message)


def test_a_complaint_names_the_model_whose_server_is_wrong() -> None:
    servers = {"good": {"url": URL}, "org/bad.1": {"url": URL, "timeouts": {"idle_seconds": -1}}}
    told = refusal(flags={"upstreams": servers})
    assert told.startswith("upstreams.org/bad.1.timeouts.idle_seconds must be a number")
    told = refusal(flags={"upstreams": {"good": {"url": URL}, "bad": {"url": "x"}}})
    assert told.startswith("upstreams.bad: The URL")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {port: many}", "server.port must be a whole number."),
        ("server: {keys: one}", "server.keys must be a list."),
        ("server: {keys: [1]}", "server.keys.0 must be text; in YAML, put it in quotes."),
        ("server: {allow_open: 7}", "server.allow_open must be true or false."),
        ("data_dir: 5", "data_dir must be a path, written as text."),
        ("upstream: {}", "upstream.url is required."),
        ("upstream: {url: u, headers: 5}", "upstream.headers must be a group of names and values."),
        ("store: {kind: disk}", "store.kind 'disk' is not installed: use one of memory, sqlite,"),
        ("blobs: {kind: 5}", "blobs.kind must be text"),
        (
            "batch_api: {window_seconds_min: x}",
            "batch_api.window_seconds_min must be a whole number.",
        ),
        ("processor: {turns: 1}\nserver: {}", "unknown setting 'processor.turns'"),
    ],
)
def test_a_wrong_value_is_reported_without_python_terms(
    tmp_path: Path, text: str, message: str
) -> None:
    assert message in in_file(tmp_path / "a.yaml", text)


def test_a_name_under_a_single_value_is_reported_without_an_empty_list() -> None:
    told = refusal(environment={"TIDEGATE_SERVER__PORT__X": "1"})
    assert told.endswith("'server.port' is one value and has no settings inside.")


@pytest.mark.parametrize("value", ["5", "[]", "text", ""])
def test_a_group_of_the_wrong_type_is_refused_with_any_flags(tmp_path: Path, value: str) -> None:
    told = in_file(tmp_path / "a.yaml", f"server: {value}\n", flags={"server.port": 9})
    assert "'server' in the file" in told
    assert "must be a group of names and values: host, port" in told


def test_a_group_inside_a_group_or_in_the_environment_is_held_to_its_type(tmp_path: Path) -> None:
    assert "'upstream.tls' in" in in_file(
        tmp_path / "a.yaml", f"upstream: {{url: '{URL}', tls: 1}}"
    )
    assert "'upstreams.m' in" in in_file(tmp_path / "a.yaml", "upstreams: {m: 1}")
    assert "'upstream' in the environment" in refusal(environment={"TIDEGATE_UPSTREAM": "[]"})


def test_upstream_null_means_none(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("upstream: null\n")
    assert load(file=path, environment={}).settings.upstream is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server: {port: 1}\nlogs: {}\nserver: {}\n", "'server' is given twice, on lines 1 and 3"),
        ("server:\n  port: 1\n  'port': 2\n", "'port' is given twice, on lines 2 and 3"),
    ],
)
def test_a_name_that_stands_twice_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.yaml"
    assert in_file(path, text) == f"The file {path} is not well-formed: {message}."


def test_names_may_recur_in_different_groups_and_after_a_merge(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        f"upstreams:\n  a: &a {{url: '{URL}', limits: {{connections_max: 1}}}}\n"
        f"  b:\n    <<: *a\n    url: {URL}/other\n"
    )
    servers = load(file=path, environment={}).settings.upstreams
    assert servers["b"].url == f"{URL}/other"
    assert servers["b"].limits.connections_max == 1


def test_what_kubernetes_puts_beside_a_service_is_no_setting() -> None:
    links = {
        "TIDEGATE_SERVICE_HOST": "10.0.0.1",
        "TIDEGATE_SERVICE_PORT": "8000",
        "TIDEGATE_SERVICE_PORT_API": "8000",
        "TIDEGATE_PORT": "tcp://10.0.0.1:8000",
        "TIDEGATE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "TIDEGATE_PORT_8000_TCP_PROTO": "tcp",
        "TIDEGATE_PORT_8000_TCP_PORT": "8000",
        "TIDEGATE_PORT_8000_TCP_ADDR": "10.0.0.1",
    }
    assert load(environment=links).origins == {}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TIDEGATE_PORT", "8000"),
        ("TIDEGATE_SERVICE", "x"),
        ("TIDEGATE_PORT_TCP", "tcp://10.0.0.1:8000"),
        ("TIDEGATE_SERVICE_PORTS", json.dumps({})),
    ],
)
def test_what_only_looks_like_it_is_refused(variable: str, value: str) -> None:
    assert "unknown setting" in refusal(environment={variable: value})
