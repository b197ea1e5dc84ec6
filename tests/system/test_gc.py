"""`tidegate gc` as a person runs it: on real SQLite and files, beside a server that works."""

import json
import os
import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import httpx

from testkit.processes import (
    REFUSED,
    create,
    results,
    run_to_end,
    serving,
    simulator,
    status_of,
    wait_until,
)

# Nobody listens there: lines wait, and are not sent.
CLOSED = "http://127.0.0.1:9"
SHORT_WINDOW = ("--set", "batch_api.window_seconds_min=1")
SHORT_LEASE = (
    *("--set", "processor.claims.lease_seconds=1.5"),
    *("--set", "processor.claims.poll_seconds=0.25"),
)
NEVER_COLLECTS = ("--set", "collector.enabled=false")
NOW = ("--set", "collector.download_seconds_max=0")


def gc(folder: Path, *arguments: str, status: int = 0) -> Mapping[str, object]:
    where = ("--data-dir", str(folder / "data"))
    done = run_to_end("gc", *where, "--json", *NOW, *arguments)
    assert done.returncode == status, done.stderr + done.stdout
    return cast("Mapping[str, object]", json.loads(done.stdout))


def blobs(folder: Path) -> dict[str, int]:
    root = folder / "data" / "blobs"
    paths = [path for path in root.rglob("*") if path.is_file()]
    return {str(path.relative_to(root)): path.stat().st_size for path in paths}


def test_space_is_reclaimed_beside_a_server_and_nothing_else_is_touched(tmp_path: Path) -> None:
    with (
        simulator(tmp_path) as upstream,
        serving(tmp_path, upstream) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        batch_id = create(client, 30)
        wait_until(lambda: status_of(client, batch_id) == "completed")
        batch = client.get(f"/v1/batches/{batch_id}").json()
        assert gc(tmp_path)["blobs_deleted"] == 0
        client.delete(f"/v1/files/{batch['input_file_id']}").raise_for_status()
        left = tmp_path / "data" / "blobs" / "uploads" / "upload_1~12-3"
        left.write_bytes(b"of a process that died")
        stranger = tmp_path / "data" / "blobs" / "notes.txt"
        stranger.write_text("mine")
        before = blobs(tmp_path)
        look = gc(tmp_path, "--dry-run")
        assert blobs(tmp_path) == before, "looking changed something"
        assert (look["dry_run"], look["files_released"], look["leftovers_removed"]) == (True, 1, 1)
        done = gc(tmp_path)
        assert (done["dry_run"], done["files_released"], done["blobs_deleted"]) == (False, 1, 1)
        assert (done["leftovers_removed"], done["unknown_blob_names"]) == (1, ["notes.txt"])
        kept = blobs(tmp_path)
        assert "notes.txt" in kept
        assert [name.partition("/")[0] for name in kept if name != "notes.txt"] == ["results"]
        assert results(client, batch_id) == sorted(f"line-{n}" for n in range(30))
        other = create(client, 5)
        wait_until(lambda: status_of(client, other) == "completed")
        assert gc(tmp_path)["drift"] == 0


def test_losses_are_reported_with_a_separate_exit_status(tmp_path: Path) -> None:
    with (
        simulator(tmp_path) as upstream,
        serving(tmp_path, upstream) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        batch_id = create(client, 3)
        wait_until(lambda: status_of(client, batch_id) == "completed")
    [name] = [name for name in blobs(tmp_path) if name.startswith("results/")]
    os.truncate(tmp_path / "data" / "blobs" / name, 10)
    found = gc(tmp_path, "--dry-run", status=4)
    assert found["drift"] == 1
    where = ("--data-dir", str(tmp_path / "data"))
    done = run_to_end("gc", *where)
    assert done.returncode == 4
    assert f"LOST: '{name}' has only 10 (" in done.stdout
    assert f"needed, of {batch_id})" in done.stdout


def test_a_place_without_a_ledger_is_refused_and_stays_as_it_is(tmp_path: Path) -> None:
    done = run_to_end("gc", "--data-dir", str(tmp_path / "nowhere"))
    assert done.returncode == REFUSED
    assert "There is no ledger at" in done.stderr
    assert list(tmp_path.iterdir()) == []
    memory = run_to_end("gc", "--data-dir", str(tmp_path), "--set", "store.kind=memory")
    assert memory.returncode == REFUSED
    assert "gc needs a store.kind" in memory.stderr


def left_by_a_killed_server(folder: Path) -> tuple[str, str]:
    """Return a batch that is past its window and one that was cancelled; nobody ended them."""
    with (
        serving(folder, CLOSED, *SHORT_LEASE, *SHORT_WINDOW) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        expiring = create(client, 1_200, window="5s")
        cancelled = create(client, 7)
        wait_until(lambda: status_of(client, expiring) == "in_progress")
        wait_until(lambda: status_of(client, cancelled) == "in_progress")
        served.signal(signal.SIGKILL)
        assert served.end() == -signal.SIGKILL
    with (
        serving(folder, CLOSED, "--processors", "0", *NEVER_COLLECTS) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        client.post(f"/v1/batches/{cancelled}/cancel").raise_for_status()
    return expiring, cancelled


def codes(client: httpx.Client, batch_id: str) -> tuple[str, Mapping[str, int], set[str]]:
    """Return the status of a batch, how often each error code is there, and its custom_ids."""
    batch = client.get(f"/v1/batches/{batch_id}").raise_for_status().json()
    text = client.get(f"/v1/files/{batch['error_file_id']}/content").raise_for_status().text
    found = [json.loads(line) for line in text.splitlines()]
    counts = Counter(line["error"]["code"] for line in found)
    assert batch["request_counts"]["failed"] == len(found)
    return batch["status"], counts, {line["custom_id"] for line in found}


def check_ends(client: httpx.Client, expiring: str, cancelled: str) -> None:
    names = {f"line-{number}" for number in range(1_200)}
    assert codes(client, expiring) == ("expired", {"batch_expired": 1_200}, names)
    few = {f"line-{number}" for number in range(7)}
    assert codes(client, cancelled) == ("cancelled", {"batch_cancelled": 7}, few)


def test_gc_ends_what_a_killed_server_left_behind(tmp_path: Path) -> None:
    expiring, cancelled = left_by_a_killed_server(tmp_path)

    def due() -> bool:
        looked = gc(tmp_path, "--dry-run")
        return (looked["batches_ended"], looked["batches_left"]) == (2, 0)

    wait_until(due)
    done = gc(tmp_path, *SHORT_LEASE)
    assert (done["batches_ended"], done["overdue"], done["drift"]) == (2, [], 0)
    with (
        serving(tmp_path, CLOSED, "--processors", "0") as served,
        httpx.Client(base_url=served.url) as client,
    ):
        check_ends(client, expiring, cancelled)
    told = run_to_end("gc", "--data-dir", str(tmp_path / "data"))
    assert "batches ended" not in told.stdout


def test_a_server_without_processors_ends_what_was_left_behind(tmp_path: Path) -> None:
    expiring, cancelled = left_by_a_killed_server(tmp_path)
    often = ("--set", "collector.interval_seconds=0.2")
    with (
        serving(tmp_path, CLOSED, "--processors", "0", *often, *SHORT_LEASE) as served,
        httpx.Client(base_url=served.url) as client,
    ):
        wait_until(lambda: status_of(client, cancelled) == "cancelled")
        wait_until(lambda: status_of(client, expiring) == "expired")
        check_ends(client, expiring, cancelled)


def test_what_is_left_to_processors_is_said(tmp_path: Path) -> None:
    with serving(tmp_path, CLOSED) as served, httpx.Client(base_url=served.url) as client:
        batch_id = create(client, 3)
        wait_until(lambda: status_of(client, batch_id) == "in_progress")
        served.signal(signal.SIGSTOP)
        with (
            serving(tmp_path, CLOSED, "--processors", "0", *NEVER_COLLECTS) as other,
            httpx.Client(base_url=other.url) as api,
        ):
            api.post(f"/v1/batches/{batch_id}/cancel").raise_for_status()
        done = run_to_end("gc", "--data-dir", str(tmp_path / "data"))
        assert done.returncode == 0, done.stderr
        assert "left to the processors that are alive: 1 batches" in done.stdout
