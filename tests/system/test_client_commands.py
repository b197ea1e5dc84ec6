"""`tidegate files` and `tidegate batches` as a person types them, against a real server."""

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from testkit.processes import (
    Served,
    command,
    create,
    environment,
    lines,
    run_to_end,
    serving,
    simulator,
    status_of,
    wait_until,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("served")
    with simulator(folder) as upstream, serving(folder, upstream) as served:
        yield served


@pytest.fixture(scope="module")
def stuck(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a server whose batches never end by themselves."""
    folder = tmp_path_factory.mktemp("stuck")
    with simulator(folder, "--latency", "600") as upstream, serving(folder, upstream) as served:
        yield served


def said(served: Served, *arguments: str, status: int = 0) -> str:
    done = run_to_end(*arguments, OPENAI_BASE_URL=f"{served.url}/v1", OPENAI_API_KEY="unused")
    assert done.returncode == status, done
    return done.stdout.strip()


def test_a_file_goes_up_is_seen_and_goes(served: Served, tmp_path: Path) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(lines(3))
    file_id = said(served, "files", "upload", str(path))
    assert f"bytes     {len(lines(3))}" in said(served, "files", "get", file_id)
    assert json.loads(said(served, "files", "get", file_id, "--json"))["filename"] == path.name
    listed = said(served, "files", "list", "--limit", "0", "--json").splitlines()
    assert file_id in {json.loads(line)["id"] for line in listed}
    assert f"{file_id}\t" in said(served, "files", "list", "--purpose", "batch")
    target = tmp_path / "copy.jsonl"
    told = json.loads(said(served, "files", "download", file_id, "-o", str(target), "--json"))
    assert told == {"path": str(target), "bytes": len(lines(3)), "resumed_from": 0}
    assert target.read_bytes() == lines(3)
    assert said(served, "files", "download", file_id, "-o", "-") == lines(3).decode()
    assert said(served, "files", "delete", file_id) == f"{file_id} is deleted."


def test_a_batch_is_made_of_a_local_file_and_watched_to_its_end(
    served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(lines(5))
    asked = ("batches", "create", str(path), "--metadata", "job=one", "--window", "1h")
    told = said(served, *asked, "--wait", "--json").splitlines()
    last = json.loads(told[-1])
    assert (last["status"], last["metadata"]) == ("completed", {"job": "one"})
    assert last["request_counts"] == {"total": 5, "completed": 5, "failed": 0}
    watched = said(served, "batches", "watch", last["id"])
    assert watched.startswith(f"{last['id']} completed 5/5 done, 0 failed,")
    assert "status    completed" in said(served, "batches", "get", last["id"])
    assert f"{last['id']}\tcompleted\t5/5" in said(served, "batches", "list", "--limit", "1")
    assert json.loads(said(served, "batches", "list", "--json").splitlines()[0])["id"] == last["id"]


def test_a_batch_that_does_not_complete_is_status_4_with_its_reasons(
    served: Served, tmp_path: Path
) -> None:
    path = tmp_path / "input.jsonl"
    path.write_bytes(b'{"custom_id": "one"}\n')
    done = run_to_end("batches", "create", str(path), "--wait", "--base-url", f"{served.url}/v1")
    assert done.returncode == 4, done
    assert "ended as failed." in done.stderr
    assert "line 1: " in done.stderr


def test_ctrl_c_leaves_the_batch_running_and_says_so(stuck: Served) -> None:
    with httpx.Client(base_url=stuck.url) as client:
        batch_id = create(client, 2)
        arguments = ("batches", "watch", "--every", "0.05", "--base-url", f"{stuck.url}/v1")
        with subprocess.Popen(
            command(*arguments),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        ) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith(batch_id)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 3
            words = process.stderr.read()
        assert "still running" in words
        assert "Traceback" not in words
        wait_until(lambda: status_of(client, batch_id) == "in_progress")
        assert '"cancelling"' in said(stuck, "batches", "cancel", batch_id, "--json")


def test_with_nothing_running_the_watch_says_so(served: Served) -> None:
    assert said(served, "batches", "watch").startswith("No batch is running")


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("files", "list", "--base-url", "http://127.0.0.1:1"), 1, "start `tidegate serve`"),
        (("files", "list", "--base-url", "nonsense"), 2, "must begin with http"),
        (("files", "list", "--api-key-file", "/nonexistent"), 2, "can't be read"),
        (("files", "list", "--timeout", "0"), 2, "--timeout must be"),
        (("files", "get", "."), 2, "printable characters"),
        (("files", "upload", "/nonexistent.jsonl"), 1, "can't be read"),
        (("batches", "create", "./nowhere.jsonl"), 2, "There is no file"),
        (("batches", "create", "file-x", "--metadata", "a"), 2, "KEY=VALUE"),
        (("batches", "create", "file-x", "--metadata", "a=1", "--metadata", "a=2"), 2, "twice"),
    ],
)
def test_what_goes_wrong_is_one_clear_line(
    arguments: tuple[str, ...], status: int, words: str
) -> None:
    done = run_to_end(*arguments, OPENAI_BASE_URL="http://127.0.0.1:1/v1")
    assert (done.returncode, done.stderr.count("\n")) == (status, 1), done
    assert words in done.stderr


def test_the_key_of_a_file_wins_over_the_environment(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("right-key\n")
    with (
        simulator(tmp_path) as upstream,
        serving(tmp_path, upstream, "--set", f"server.keys_file={keys}") as served,
    ):
        url = f"{served.url}/v1"
        refused = run_to_end("files", "list", OPENAI_BASE_URL=url, OPENAI_API_KEY="wrong")
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "OPENAI_API_KEY" in refused.stderr
        fine = run_to_end(
            *("files", "list", "--api-key-file", str(keys)),
            OPENAI_BASE_URL=url,
            OPENAI_API_KEY="wrong",
        )
        assert fine.returncode == 0, fine
