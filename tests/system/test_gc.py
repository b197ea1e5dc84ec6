"""`tidegate gc` as a person runs it: on real SQLite and files, beside a server that works."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import httpx

from tidegate.testing.commands import (
    REFUSED,
    create,
    results,
    run_to_end,
    serving,
    simulator,
    status_of,
    wait_until,
)

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
        assert (done["leftovers_removed"], done["stranger_names"]) == (1, ["notes.txt"])
        kept = blobs(tmp_path)
        assert "notes.txt" in kept
        assert [name.partition("/")[0] for name in kept if name != "notes.txt"] == ["results"]
        assert results(client, batch_id) == sorted(f"line-{n}" for n in range(30))
        other = create(client, 5)
        wait_until(lambda: status_of(client, other) == "completed")
        assert gc(tmp_path)["drift"] == 0


def test_what_is_lost_is_told_with_a_status_of_its_own(tmp_path: Path) -> None:
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
    assert "nothing for gc to do" in memory.stderr
