"""`config check` refuses what `serve` would refuse, and the small commands take no empty names."""

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tidegate.cli import app
from tidegate.config import Settings, check_serving, load
from tidegate.domain.errors import SettingsInvalid
from tidegate.upstreams.settings import ENDPOINT_PATHS, origin_of

ROOT = Path(__file__).parents[2]
CERTIFICATES = Path(__file__).parent / "upstreams" / "certificates"
URL = "https://127.0.0.1:8001"


def settings(folder: Path, flags: dict[str, object]) -> Settings:
    base = {"data_dir": str(folder / "deep" / "data"), "upstream.url": URL}
    if any(name.startswith("upstreams") for name in flags):
        del base["upstream.url"]
    return load(environment={}, flags={**base, **flags}).settings


def test_what_can_be_served_passes_and_leaves_nothing(tmp_path: Path) -> None:
    authority = str(CERTIFICATES / "authority.pem")
    check_serving(settings(tmp_path, {"upstream.tls.ca_file": authority}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"upstream.tls.ca_file": "/nonexistent"}, r"^upstream\.tls\.ca_file \(/nonexistent\)"),
        ({"upstream.tls.cert_file": __file__}, r"^upstream\.tls\.cert_file .* and its key can't"),
        (
            {"upstreams": {"m": {"url": URL, "tls": {"ca_file": "/nonexistent"}}}},
            r"^upstreams\.m\.tls\.ca_file",
        ),
        ({"data_dir": __file__}, r"can.t be used .Not a directory.: fix"),
        ({"data_dir": f"{__file__}/data"}, r"can.t be used .Not a directory.: fix"),
        ({"store.kind": "memory"}, "loses track of stored blobs when it ends: set blobs.kind"),
        ({"server.host": "203.0.113.7", "server.allow_open": True}, "set server.host to one"),
    ],
    ids=[
        "authority",
        "certificate",
        "model",
        "data-is-file",
        "data-in-file",
        "memory",
        "foreign-host",
    ],
)
def test_what_can_not_be_served_is_refused(
    tmp_path: Path, flags: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsInvalid, match=message):
        check_serving(settings(tmp_path, flags))


@pytest.mark.parametrize("command", [["config", "check"], ["serve"]])
def test_check_and_serve_refuse_the_same(tmp_path: Path, command: list[str]) -> None:
    path = tmp_path / "tidegate.yaml"
    path.write_text(f"upstream: {{url: '{URL}', tls: {{ca_file: /nonexistent}}}}\n")
    done = CliRunner().invoke(app, [*command, "--config", str(path)])
    assert isinstance(done.exception, SettingsInvalid)
    assert str(done.exception).startswith("upstream.tls.ca_file (/nonexistent)")


@pytest.mark.parametrize("path", ENDPOINT_PATHS)
@pytest.mark.parametrize("end", ["", "/"])
def test_the_url_of_an_endpoint_is_refused_with_the_right_one(path: str, end: str) -> None:
    url = f"http://h/p/v1{path.removeprefix('/v1')}{end}"
    with pytest.raises(SettingsInvalid, match=r": write http://h/p/v1\.$"):
        origin_of(url)


def test_a_prefix_that_only_looks_like_an_endpoint_is_taken() -> None:
    assert origin_of("http://h/models").prefix == "/models"
    assert origin_of("http://h/my-completions/v1").prefix == "/my-completions"


@pytest.mark.parametrize("names", [[""], [" "], ["a", ""]])
def test_a_simulated_model_needs_a_name(names: list[str]) -> None:
    flags = [part for name in names for part in ("--model", name)]
    done = CliRunner().invoke(app, ["simulate", "--port", "0", *flags])
    assert isinstance(done.exception, SettingsInvalid)
    assert "--model is empty" in str(done.exception)


def test_no_package_is_required_twice() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [item.partition("==")[0].lower() for item in project["dependencies"]]
    spelled = [name.replace("_", "-") for name in required]
    assert len(spelled) == len(set(spelled))
