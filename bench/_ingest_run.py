"""Takes one file into a running server, from its first byte to the first request of its batch."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
from _dispatch_ours import Serving
from _first_request import FirstRequest
from _ingest_input import Input
from _upload import upload

POLL_SECONDS = 0.02
SECONDS_MAX = 300.0
_ENDED = {"completed", "failed", "expired", "cancelled"}
# Written to clear_refs, it makes the kernel forget the most memory that a process ever held.
_FORGET_PEAK = "5"


@dataclass(frozen=True)
class Taken:
    """What one file cost the server.

    `upload_cpu` and `planning_cpu` are seconds, before and after create; `first_seconds` is from
    create to the first request at the model server. `looks` are the seconds that each
    `GET /v1/batches/{id}` took meanwhile. `growth_mb` is the most memory held, less what was held
    before.
    """

    upload_seconds: float
    upload_cpu: float
    planning_cpu: float
    first_seconds: float
    growth_mb: float
    looks: list[float]

    @property
    def cpu(self) -> float:
        return self.upload_cpu + self.planning_cpu


def take_in(server: Serving, upstream: FirstRequest, given: Input) -> Taken:
    """Upload and run a file until its first request is seen; then cancel its batch."""
    before_mb = _memory_mb(server, "VmRSS")
    Path(f"/proc/{server.process.pid}/clear_refs").write_text(_FORGET_PEAK)
    upstream.forget()
    began = server.cpu_seconds()
    uploaded = upload(str(server.api.base_url).rstrip("/"), given.path, "batch")
    created, at_create = time.monotonic(), server.cpu_seconds()
    order = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = _told(server.api.post("/batches", json={"input_file_id": uploaded.file_id, **order}))
    looks: list[float] = []
    while batch["status"] == "validating":
        _check_time(created, batch)
        time.sleep(POLL_SECONDS)
        asked = time.monotonic()
        batch = _told(server.api.get(f"/batches/{batch['id']}"))
        looks.append(time.monotonic() - asked)
    planned = server.cpu_seconds()
    growth_mb = _memory_mb(server, "VmHWM") - before_mb
    if batch["status"] != "in_progress":
        raise SystemExit(f"The batch was not planned: {batch}")
    first = upstream.came_at()
    _end(server, batch, given.lines)
    return Taken(
        upload_seconds=uploaded.seconds,
        upload_cpu=at_create - began,
        planning_cpu=planned - at_create,
        first_seconds=first - created,
        growth_mb=growth_mb,
        looks=looks,
    )


@dataclass(frozen=True)
class Copied:
    """An upload of the same bytes that nobody looks into."""

    seconds: float
    cpu: float


def copy(server: Serving, given: Input) -> Copied:
    """Upload a file for a purpose of which nothing is read."""
    began = server.cpu_seconds()
    uploaded = upload(str(server.api.base_url).rstrip("/"), given.path, "user_data")
    cpu = server.cpu_seconds() - began
    server.api.delete(f"/files/{uploaded.file_id}").raise_for_status()
    return Copied(uploaded.seconds, cpu)


def _end(server: Serving, batch: dict[str, object], lines: int) -> None:
    """Cancel the batch, see that no line got lost, and free the space of its files."""
    began = time.monotonic()
    batch = _told(server.api.post(f"/batches/{batch['id']}/cancel"))
    while batch["status"] not in _ENDED:
        _check_time(began, batch)
        time.sleep(POLL_SECONDS)
        batch = _told(server.api.get(f"/batches/{batch['id']}"))
    counts = batch["request_counts"]
    assert isinstance(counts, dict), counts
    if counts["total"] != lines or counts["completed"] + counts["failed"] != lines:
        raise SystemExit(f"{lines} lines were uploaded, and it ended as {batch}")
    for name in ("input_file_id", "output_file_id", "error_file_id"):
        if batch[name] is not None:
            server.api.delete(f"/files/{batch[name]}").raise_for_status()


def _check_time(began: float, batch: dict[str, object]) -> None:
    if time.monotonic() - began > SECONDS_MAX:
        raise SystemExit(f"The batch did not get on in {SECONDS_MAX:g} s: {batch}")


def _memory_mb(server: Serving, name: str) -> float:
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.findall(rf"^{name}:\s+(\d+)", status, re.MULTILINE)[0]) / 1024


def _told(reply: httpx.Response) -> dict[str, object]:
    if reply.is_error:
        raise SystemExit(f"{reply.request.url} answered {reply.status_code}: {reply.text}")
    fields = reply.json()
    assert isinstance(fields, dict), fields
    return fields
