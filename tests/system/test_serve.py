"""`tidegate serve` as a process: started, used, stopped and refused as a person would meet it."""

import signal
import socket
from pathlib import Path

import httpx
import pytest

from testkit.processes import (
    create,
    one_line,
    results,
    run_to_end,
    serving,
    simulator,
    status_of,
    wait_until,
)


def test_a_batch_runs_and_one_signal_stops_the_process(tmp_path: Path) -> None:
    with simulator(tmp_path) as upstream, serving(tmp_path, upstream) as served:
        with httpx.Client(base_url=served.url) as client:
            assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["sim"]
            batch_id = create(client, 20)
            wait_until(lambda: status_of(client, batch_id) == "completed")
            assert results(client, batch_id) == sorted(f"line-{n}" for n in range(20))
        served.signal(signal.SIGTERM)
        assert served.end() == 0
    log = served.errors.read_text()
    assert "no keys are set" in log
    assert "Traceback" not in log


def test_a_second_signal_cuts_it_short_and_the_next_start_goes_on(tmp_path: Path) -> None:
    with simulator(tmp_path, "--latency", "600") as slow, serving(tmp_path, slow) as served:
        with httpx.Client(base_url=served.url) as client:
            batch_id = create(client, 3)
            wait_until(lambda: status_of(client, batch_id) == "in_progress")
        served.signal(signal.SIGTERM)
        wait_until(lambda: "process_stopping" in served.errors.read_text())
        served.signal(signal.SIGINT)
        assert served.end() == 3
    with (
        simulator(tmp_path) as quick,
        serving(tmp_path, quick) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        wait_until(lambda: status_of(client, batch_id) == "completed")
        assert results(client, batch_id) == ["line-0", "line-1", "line-2"]


def test_with_keys_requests_without_one_are_refused(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("secret-one\nsecret-two blue\n")
    with (
        simulator(tmp_path) as upstream,
        serving(tmp_path, upstream, "--set", f"server.keys_file={keys}") as served,
        httpx.Client(base_url=served.url) as client,
    ):
        assert client.get("/v1/files").status_code == 401
        known = {"authorization": "Bearer secret-one"}
        other = {"authorization": "Bearer secret-two"}
        client.headers.update(known)
        batch_id = create(client, 1)
        assert client.get(f"/v1/batches/{batch_id}").status_code == 200
        assert client.get(f"/v1/batches/{batch_id}", headers=other).status_code == 404
        log = served.errors.read_text()
        assert "no keys are set" not in log
        assert "secret" not in log


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        where = ("--upstream", "http://127.0.0.1:1", "--data-dir", str(tmp_path / "data"))
        line = one_line(run_to_end("serve", "--port", port, *where))
    assert f"Port {port} on 127.0.0.1 is in use" in line


def test_a_data_directory_that_cannot_be_used_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    where = ("--upstream", "http://127.0.0.1:1", "--data-dir", str(tmp_path / "file" / "data"))
    ports = ("--port", "0", "--observability-port", "0")
    line = one_line(run_to_end("serve", *ports, *where))
    assert "can't be used (Not a directory)" in line


def test_storage_that_does_not_work_ends_it_with_one_clear_line(tmp_path: Path) -> None:
    arguments = ("--port", "0", "--observability-port", "0", "--upstream", "http://127.0.0.1:1")
    for name, expected in (("ledger.db", "is damaged or no SQLite database"), ("blobs", "disk")):
        folder = tmp_path / f"with-bad-{name}"
        folder.mkdir()
        (folder / name).write_bytes(b"not what belongs here" * 100)
        done = run_to_end("serve", *arguments, "--data-dir", str(folder))
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1, done.stderr
        assert expected in done.stderr


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("serve",), "No model server is configured"),
        (("serve", "--upstream", "nonsense"), "must begin with http or https"),
        (("serve", "--upstream", "http://x", "--host", "0.0.0.0"), "--allow-open"),
        (("serve", "--config", "/nonexistent.yaml"), "can't be read"),
        (("serve", "--set", "server.prot=1"), "did you mean 'port'?"),
        (("serve", "--set", "server.port"), "must have the form NAME=VALUE"),
        (("serve", "--port", "1", "--set", "server.port=2"), "given twice"),
        (("config", "check"), "No model server is configured"),
    ],
)
def test_wrong_settings_are_one_clear_line(
    tmp_path: Path, arguments: tuple[str, ...], expected: str
) -> None:
    assert expected in one_line(run_to_end(*arguments, HOME=str(tmp_path)))


def test_config_commands_answer(tmp_path: Path) -> None:
    example = run_to_end("config", "example")
    assert example.returncode == 0
    file = tmp_path / "example.yaml"
    file.write_text(example.stdout)
    assert run_to_end("config", "check", "--config", str(file)).returncode == 0
    shown = run_to_end("config", "show", "--config", str(file), TIDEGATE_SERVER__PORT="9")
    assert "  port: 9  # environment TIDEGATE_SERVER__PORT" in shown.stdout
    assert run_to_end("version").stdout.startswith("tidegate ")
