"""`tidegate doctor` as a person types it: beside a server, and when something is wrong."""

import json
import subprocess
from pathlib import Path

from testkit.processes import run_to_end, serving, simulator

KEYS = ("first-secret", "second-secret", "third-secret")


def findings(done: subprocess.CompletedProcess[str]) -> dict[str, list[tuple[str, str]]]:
    told = json.loads(done.stdout)
    found: dict[str, list[tuple[str, str]]] = {}
    for item in told["findings"]:
        found.setdefault(item["area"], []).append((item["level"], item["message"]))
    assert told["ok"] == (done.returncode == 0)
    return found


def configured(folder: Path, upstream: str) -> Path:
    """Write settings with secrets in every place where secrets may stand."""
    path = folder / "tidegate.yaml"
    server = {"url": upstream, "api_key": KEYS[0], "headers": {"x-key": KEYS[1]}}
    members = {
        "server": {"keys": [KEYS[2]], "port": 1, "observability_port": 2},
        "upstreams": {"sim": server, "llama-3.1": {"url": "http://127.0.0.1:1"}},
        "data_dir": str(folder / "data"),
    }
    path.write_text(json.dumps(members))
    return path


def test_beside_a_server_all_is_well_and_nothing_changes(tmp_path: Path) -> None:
    with simulator(tmp_path) as upstream, serving(tmp_path, upstream) as served:
        ports = [url.rpartition(":")[2] for url in (served.url, served.observability_url)]
        done = run_to_end(
            *("doctor", "--json", "--probe", "--upstream", upstream),
            *("--data-dir", str(tmp_path / "data")),
            *("--set", f"server.port={ports[0]}"),
            *("--set", f"server.observability_port={ports[1]}"),
        )
        found = findings(done)
    assert done.returncode == 0, done.stdout
    assert [level for level, _ in found["model server upstream"]] == ["ok", "ok"]
    assert "serves the API" in found[f"port {ports[0]}"][0][1]
    assert "is ready" in found[f"port {ports[1]}"][0][1]
    assert "1 processors alive" in found["batches"][0][1]
    assert (str(tmp_path / "data"), "(flag)") in [
        (text.split(" ")[1], text.split(" ")[2])
        for _, text in found["settings"]
        if text.startswith("data_dir: ")
    ]


def test_what_is_wrong_is_said_with_what_to_do_and_without_secrets(tmp_path: Path) -> None:
    with simulator(tmp_path) as upstream:
        path = configured(tmp_path, upstream)
        before = sorted(item.name for item in tmp_path.iterdir())
        done = run_to_end("doctor", "--config", str(path))
    assert done.returncode == 1
    assert "fail  model server llama-3.1: " in done.stdout
    assert "Start it" in done.stdout
    assert "upstreams.llama-3.1.url: http://127.0.0.1:1 (file" in done.stdout
    assert "1 failure." in done.stdout.splitlines()[-1]
    assert sorted(item.name for item in tmp_path.iterdir()) == before
    for secret in KEYS:
        assert secret not in done.stdout + done.stderr


def test_settings_that_repeat_the_defaults_are_counted_and_not_listed(tmp_path: Path) -> None:
    path = tmp_path / "tidegate.yaml"
    path.write_text(run_to_end("config", "example").stdout)
    done = run_to_end("doctor", "--json", "--config", str(path), "--set", "server.port=0")
    told = [text for _, text in findings(done)["settings"]]
    assert f"upstream.url: http://127.0.0.1:8001 (file {path})" in told
    assert "server.port: 0 (flag)" in told
    assert told[-1].endswith("more are set to their default.")
    assert len(told) < 8, told


def test_wrong_settings_are_a_finding(tmp_path: Path) -> None:
    done = run_to_end("doctor", "--json", "--set", "server.prot=1")
    assert done.returncode == 1
    assert findings(done)["settings"][0][0] == "fail"
    assert "did you mean 'port'?" in done.stdout
