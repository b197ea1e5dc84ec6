"""What may leave: settings that check themselves, and heads built from an allow-list."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import pytest

from tidegate.domain.errors import Refused, SettingsInvalid
from tidegate.upstreams.base import Call
from tidegate.upstreams.header_rules import CALL_HEADERS, RESERVED_HEADERS
from tidegate.upstreams.http1.request_head import LINES_KEPT_MAX, RequestHeads
from tidegate.upstreams.settings import HttpSettings, Limits, Timeouts, TlsSettings
from tidegate.upstreams.transport.tls import make_context

URL = "http://host:8000"


def head(call: Call, url: str = URL, key: str | None = None, **headers: str) -> list[str]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    made = RequestHeads(HttpSettings(url=url, api_key=key, headers=named)).head(call)
    assert made.endswith(b"\r\n\r\n")
    return made.decode("latin-1").split("\r\n")[:-2]


def call(path: str = "/v1/x", body: bytes = b"{}", method: str = "POST", **headers: str) -> Call:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Call(path=path, body=body, method=method, headers=named)


def test_a_whole_head() -> None:
    assert head(call(x_request_id="r1"), key="sk-1", X_Team="blue") == [
        "POST /v1/x HTTP/1.1",
        "host: host:8000",
        "accept-encoding: identity",
        "accept: application/json",
        "user-agent: tidegate",
        "x-team: blue",
        "authorization: Bearer sk-1",
        "x-request-id: r1",
        "content-type: application/json",
        "content-length: 2",
    ]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_call_without_a_body_speaks_of_none(method: str) -> None:
    rows = head(call(body=b"", method=method))
    assert rows[0] == f"{method} /v1/x HTTP/1.1"
    assert not [row for row in rows if row.startswith("content-")]


def test_an_empty_post_has_a_length() -> None:
    assert head(call(body=b""))[-1] == "content-length: 0"


@pytest.mark.parametrize(
    ("url", "host", "target"),
    [
        ("http://host", "host", "/v1/x"),
        ("http://host/", "host", "/v1/x"),
        ("http://host:80/v1", "host", "/v1/x"),
        ("http://host:8000/v1/", "host:8000", "/v1/x"),
        ("https://host:443/prefix", "host", "/prefix/v1/x"),
        ("https://host:8443/prefix/v1", "host:8443", "/prefix/v1/x"),
        ("https://HOST:80/a/b/", "host:80", "/a/b/v1/x"),
        ("http://[::1]:9/v1", "[::1]:9", "/v1/x"),
        ("http://[::1]", "[::1]", "/v1/x"),
        ("http://host/v1beta", "host", "/v1beta/v1/x"),
    ],
)
def test_the_base_url_and_the_path_make_one_target(url: str, host: str, target: str) -> None:
    rows = head(call(), url)
    assert rows[0] == f"POST {target} HTTP/1.1"
    assert rows[1] == f"host: {host}"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "host:8000",
        "ftp://host",
        "http://",
        "http://:80",
        "http://user@host",
        "http://user:key@host",
        "http://host?x=1",
        "http://host#x",
        "http://host/?",
        "http://host:0",
        "http://host:65536",
        "http://host:port",
        "http://[::1",
        "http://host/a b",
        "http://host/\r\nx: y",
        "http://host/\x00",
        "http://höst",
    ],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"URL of the upstream .*\.$"):
        HttpSettings(url=url)


@pytest.mark.parametrize(
    "key", ["", " sk", "sk\n", "sk\r", "s\nk", "s\0k", "schlüssel", "s\x7fk", "sk\t"]
)
def test_a_key_that_cant_be_sent_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(SettingsInvalid, match=r"^api_key is empty or holds .*\.$") as caught:
        HttpSettings(url=URL, api_key=key)
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize(
    "headers",
    [
        {"x": "a\r\nb: c"},
        {"x": "a\n"},
        {"x": "a\0"},
        {"x": "a\x1b"},
        {"x": "a\x7f"},
        {"x": "€"},
        {"x y": "a"},
        {"x\n": "a"},
        {"": "a"},
        {"x:": "a"},
        {"ü": "a"},
        {"X-A": "a", "x-a": "b"},
        *[{name.title(): "a"} for name in sorted(RESERVED_HEADERS)],
    ],
)
def test_a_configured_header_that_cant_be_sent_is_refused(headers: Mapping[str, str]) -> None:
    with pytest.raises(SettingsInvalid, match=r"\.$"):
        HttpSettings(url=URL, headers=headers)


def test_a_key_and_an_authorization_header_exclude_each_other() -> None:
    assert "authorization: Basic eA==" in head(call(), authorization="Basic eA==")
    with pytest.raises(SettingsInvalid, match="keep one"):
        HttpSettings(url=URL, api_key="sk", headers={"Authorization": "Basic eA=="})


def test_secrets_are_not_shown() -> None:
    shown = repr(HttpSettings(url=URL, api_key="sk-secret", headers={"x-key": "hush"}))
    assert "sk-secret" not in shown
    assert "hush" not in shown


def test_every_header_of_the_allow_list_is_sent_and_no_other() -> None:
    for name in CALL_HEADERS:
        one = Call(path="/v1/x", body=b"", headers={name: "é~ \t"})
        assert f"{name}: é~ \t" in head(one)
    for name in ["cookie", "authorization", "X-Request-Id", "x-request-id ", "host", "", "expect"]:
        with pytest.raises(Refused, match="may not carry") as caught:
            head(Call(path="/v1/x", body=b"", headers={name: "a"}))
        assert caught.value.param == "headers"


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\n", "\r", "a\0", "\x08", "€", "\ud800"])
def test_a_value_that_cant_be_sent_is_refused(value: str) -> None:
    with pytest.raises(Refused, match="line break") as caught:
        head(call(x_request_id=value))
    assert caught.value.param == "headers.x-request-id"


def test_a_call_knows_better_than_the_settings() -> None:
    rows = head(call(x_gateway_inference_objective="now"), X_Gateway_Inference_Objective="later")
    assert [row for row in rows if "objective" in row] == ["x-gateway-inference-objective: now"]


@pytest.mark.parametrize(
    "path", ["", "v1", "/v1/a b", "/v1/\r\nx: y", "/v1/\0", "/v1/#x", "/v1/ü", "http://host/v1"]
)
def test_a_path_that_is_none_is_refused(path: str) -> None:
    with pytest.raises(Refused) as caught:
        head(call(path))
    assert caught.value.param == "path"


@pytest.mark.parametrize("method", ["", "CONNECT", "post", "GET /", "TRACE", "GET\r\n"])
def test_a_method_that_is_none_is_refused(method: str) -> None:
    with pytest.raises(Refused) as caught:
        head(call(method=method))
    assert caught.value.param == "method"


def test_the_remembered_request_lines_are_bounded() -> None:
    heads = RequestHeads(HttpSettings(url=URL))
    for number in range(LINES_KEPT_MAX + 1):
        assert heads.head(call(f"/v1/{number}")).startswith(b"POST /v1/%d HTTP" % number)
        assert len(heads._starts) <= LINES_KEPT_MAX
    assert len(heads._starts) == 1


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Timeouts)])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_is_above_zero(name: str, value: float) -> None:
    with pytest.raises(SettingsInvalid, match=name):
        Timeouts(**{name: value})
    assert getattr(Timeouts(**{name: 0.001}), name) == 0.001


@pytest.mark.parametrize(
    ("name", "low"),
    [
        ("header_bytes_max", 64),
        ("header_count_max", 1),
        ("body_bytes_max", 0),
        ("chunk_extension_bytes_max", 0),
        ("interim_replies_max", 0),
        ("connections_max", 1),
        ("idle_connections_max", 0),
    ],
)
def test_a_bound_has_a_floor(name: str, low: int) -> None:
    assert getattr(Limits(**{name: low}), name) == low
    with pytest.raises(SettingsInvalid, match=f"{name} must be a whole number of at least {low}"):
        Limits(**{name: low - 1})


def test_a_tls_key_needs_its_certificate() -> None:
    with pytest.raises(SettingsInvalid, match="set both"):
        TlsSettings(key_file=Path("key.pem"))


def test_tls_files_that_cant_be_used_are_named(tmp_path: Path) -> None:
    missing, wrong = tmp_path / "missing.pem", tmp_path / "wrong.pem"
    wrong.write_text("not PEM")
    for path in [missing, wrong]:
        with pytest.raises(SettingsInvalid, match=rf"tls.ca_file \({path}\)"):
            make_context(TlsSettings(ca_file=path))
        with pytest.raises(SettingsInvalid, match=rf"tls.cert_file \({path}\)"):
            make_context(TlsSettings(cert_file=path))
