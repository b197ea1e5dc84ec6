"""Several processes on one data directory, as an operator starts, stops and loses them."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from testkit.processes import (
    child,
    create,
    one_line,
    results,
    run_to_end,
    serving,
    simulator,
    status_of,
    wait_until,
)

READY = "tidegate processor is ready: "


@contextmanager
def processor(
    folder: Path, name: str, upstream: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run one processor on the data directory of `serving`; yield it with its operators' URL."""
    arguments = ("processor", "--upstream", upstream, "--data-dir", str(folder / "data"))
    errors = folder / f"{name}.log"
    with child(errors, *arguments) as (process, line):
        assert line.startswith(READY), errors.read_text()
        yield process, line.split()[-1]


def checks_of(url: str) -> dict[str, str]:
    checks: dict[str, str] = httpx.get(f"{url}/ready").json()["checks"]
    return checks


def child_pids(log: Path) -> list[int]:
    """Return the pid of every child that was ever started."""
    rows = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [row["pid"] for row in rows if row["event"] == "processor_started"]


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_processors_beside_an_api_share_the_work(tmp_path: Path) -> None:
    with (
        simulator(tmp_path) as upstream,
        serving(tmp_path, upstream, "--processors", "0") as served,
        httpx.Client(base_url=served.url) as client,
    ):
        batch_id = create(client, 50)
        with (
            processor(tmp_path, "one", upstream) as (first, first_url),
            processor(tmp_path, "two", upstream) as (second, _),
        ):
            wait_until(lambda: status_of(client, batch_id) == "completed")
            assert results(client, batch_id) == sorted(f"line-{n}" for n in range(50))
            assert httpx.get(f"{first_url}/health").status_code == 200
            assert httpx.get(f"{first_url}/ready").status_code == 200
            assert "tidegate_lines_total" in httpx.get(f"{first_url}/metrics").text
            for process in (first, second):
                process.send_signal(signal.SIGTERM)
                assert process.wait(timeout=30.0) == 0
    assert "Traceback" not in (tmp_path / "one.log").read_text()


def test_children_are_restarted_and_stop_with_their_parent(tmp_path: Path) -> None:
    flags = (
        "--processors",
        "2",
        "--set",
        "logs.format=json",
        "--set",
        "upstream.api_key=sk-secret",
    )
    with (
        simulator(tmp_path) as upstream,
        serving(tmp_path, upstream, *flags) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        first = child_pids(served.errors)
        assert len(first) == 2
        command = Path(f"/proc/{first[0]}/cmdline").read_bytes()
        assert b"sk-secret" not in command
        os.kill(first[0], signal.SIGKILL)
        wait_until(lambda: len(child_pids(served.errors)) == 3)
        batch_id = create(client, 20)
        wait_until(lambda: status_of(client, batch_id) == "completed")
        served.signal(signal.SIGTERM)
        assert served.end() == 0
        assert not any(is_running(pid) for pid in child_pids(served.errors))
    log = served.errors.read_text()
    assert '"why": "exit status -9"' in log
    assert log.count('"event": "processor_ended"') == 1
    assert "sk-secret" not in log
    assert "Traceback" not in log


def test_a_second_signal_cuts_the_children_short(tmp_path: Path) -> None:
    flags = ("--processors", "2", "--set", "logs.format=json")
    with (
        simulator(tmp_path, "--latency", "600") as slow,
        serving(tmp_path, slow, *flags) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        batch_id = create(client, 3)
        wait_until(lambda: status_of(client, batch_id) == "in_progress")
        served.signal(signal.SIGTERM)
        wait_until(lambda: served.errors.read_text().count('"event": "process_stopping"') == 3)
        served.signal(signal.SIGTERM)
        assert served.end() == 3
        assert not any(is_running(pid) for pid in child_pids(served.errors))


def test_children_end_by_themselves_when_their_parent_is_killed(tmp_path: Path) -> None:
    flags = ("--processors", "2", "--set", "logs.format=json")
    with simulator(tmp_path) as upstream, serving(tmp_path, upstream, *flags) as served:
        pids = child_pids(served.errors)
        served.signal(signal.SIGKILL)
        assert served.end() == -9
        wait_until(lambda: not any(is_running(pid) for pid in pids))
    log = served.errors.read_text()
    assert log.count('"event": "process_stopped"') == 2


def test_the_operators_of_serve_see_how_many_are_alive(tmp_path: Path) -> None:
    port = ("--set", "logs.format=json", "--processors", "2")
    with simulator(tmp_path) as upstream, serving(tmp_path, upstream, *port) as served:
        url = served.observability_url
        assert checks_of(url)["processors"] == "2 of 2 processors are alive."
        for pid in child_pids(served.errors):
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: len(child_pids(served.errors)) == 4)
        wait_until(lambda: checks_of(url)["processors"].startswith("2 of 2"))
        assert "tidegate_processors_alive 2.0" in httpx.get(f"{url}/metrics").text


def test_a_processor_refuses_what_it_could_not_share(tmp_path: Path) -> None:
    where = ("--upstream", "http://127.0.0.1:1", "--data-dir", str(tmp_path / "data"))
    line = one_line(run_to_end("processor", *where, "--set", "store.kind=memory"))
    assert "set store.kind to sqlite and blobs.kind to filesystem" in line
    assert "leave it out" in one_line(run_to_end("processor", "--supervised", "me"))
    line = one_line(run_to_end("processor", *where, "--supervised", "me"))
    assert "no other flag" in line
