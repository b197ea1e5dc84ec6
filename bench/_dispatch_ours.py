"""Runs one batch through a real `tidegate serve` on SQLite and files, and reads what it cost."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import httpx
from _dispatch_job import Job, OurCost
from _fast_upstream import FastUpstream
from _machine import cpu_seconds, starting_on, stop, user_and_system_seconds
from _processes import free_port, wait_until_healthy

ENDED = {"completed", "failed", "expired", "cancelled"}
STOP_SECONDS_MAX = 40.0
JOB_SECONDS_MAX = 600.0
# Each look costs the process under test some of the CPU that is measured: few of them.
PLANNING_POLL_SECONDS = 0.01
DISPATCH_POLL_SECONDS = 0.025
COMMAND = (sys.executable, "-P", "-m", "tidegate")


class Upstream(Protocol):
    """A running model server; `certificate` is what to trust where it speaks TLS."""

    @property
    def url(self) -> str: ...

    @property
    def certificate(self) -> Path | None: ...


@dataclass(frozen=True)
class Serving:
    """A running `tidegate serve`."""

    process: subprocess.Popen[bytes]
    api: httpx.Client
    operators: str

    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process.pid)

    def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        text = httpx.get(f"{self.operators}/metrics").raise_for_status().text
        found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        return sum(float(value) for value in found)

    def rss_mb(self) -> float:
        """The most memory that it ever held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"^VmHWM:\s+(\d+)", status, re.MULTILINE)[0]) / 1024


@contextmanager
def serving(
    folder: Path,
    upstream: Upstream,
    concurrency: int,
    core: int | None,
    *,
    command: Sequence[str] = COMMAND,
    env: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """Run `tidegate serve` in an empty folder, on one core, until the block ends."""
    folder.mkdir()
    settings = _settings(upstream, concurrency)
    with serving_from(folder, settings, core, command=command, env=env) as server:
        yield server


@contextmanager
def serving_from(
    folder: Path,
    settings: Mapping[str, object],
    core: int | None,
    *,
    command: Sequence[str] = COMMAND,
    env: Mapping[str, str] | None = None,
) -> Iterator[Serving]:
    """Run `tidegate serve` with these settings over what is in `folder`/data, if anything is."""
    config = folder / "tidegate.yaml"
    config.write_text(json.dumps(settings))
    port, operators = free_port(), free_port()
    arguments = ["serve", "--config", str(config), "--data-dir", str(folder / "data")]
    arguments += ["--port", str(port), "--observability-port", str(operators)]
    log = folder / "serve.log"
    with log.open("wb") as out, starting_on(core):
        process = subprocess.Popen([*command, *arguments], stdout=out, stderr=out, env=env)
    try:
        wait_until_healthy(f"http://127.0.0.1:{operators}/ready", process, log)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/v1", timeout=60.0) as api:
            yield Serving(process, api, f"http://127.0.0.1:{operators}")
    finally:
        stop(process, STOP_SECONDS_MAX)


def _settings(upstream: Upstream, concurrency: int) -> dict[str, object]:
    """All defaults but for the number at once: the adaptive limit has nothing to learn here."""
    server: dict[str, object] = {
        "url": upstream.url,
        "concurrency": {"start": concurrency, "min": concurrency, "max": concurrency},
        "limits": {"connections_max": concurrency, "idle_connections_max": concurrency},
    }
    if upstream.certificate is not None:
        server["tls"] = {"ca_file": str(upstream.certificate)}
    limits = {"in_flight_max": concurrency}
    return {"upstreams": {"m": server}, "processor": {"limits": limits}}


def run_batch(
    server: Serving,
    upstream: FastUpstream,
    job: Job,
    *,
    on_phase: Callable[[], object] = lambda: None,
) -> OurCost:
    """Upload, create, wait for the end, and check that each line came back once.

    CPU is counted from the first look that finds the batch planned to the one that finds it ended;
    `on_phase` is called at both.
    """
    asked, commits = upstream.requests(), server.metric("tidegate_commits_total")
    file_id = upload(server, job)
    created, before = time.monotonic(), server.cpu_seconds()
    batch = create(server, file_id)
    batch = wait(server, batch, {"in_progress", "finalizing", *ENDED}, PLANNING_POLL_SECONDS)
    planned, at_plan = time.monotonic(), server.cpu_seconds()
    on_phase()
    user, system = user_and_system_seconds(server.process.pid)
    batch = wait(server, batch, ENDED, DISPATCH_POLL_SECONDS)
    ended, at_end = time.monotonic(), server.cpu_seconds()
    on_phase()
    user_end, system_end = user_and_system_seconds(server.process.pid)
    check(server, batch, job)
    if upstream.requests() - asked != job.lines:
        raise SystemExit(f"{upstream.requests() - asked} requests for {job.lines} lines.")
    ticks = user_end - user + system_end - system
    return OurCost(
        requests=job.lines,
        cpu_us=(at_end - at_plan) * 1e6,
        seconds=ended - planned,
        planning_cpu_us=(at_plan - before) * 1e6,
        system_share=(system_end - system) / ticks if ticks else 0.0,
        job_seconds=ended - created,
        commits=round(server.metric("tidegate_commits_total") - commits),
        rss_mb=server.rss_mb(),
    )


def upload(server: Serving, job: Job) -> str:
    """Store the lines of a job; return the file's id."""
    with job.path.open("rb") as data:
        form = {"file": ("in", data)}
        file = _reply_json(server.api.post("/files", data={"purpose": "batch"}, files=form))
    return str(file["id"])


def create(server: Serving, file_id: str) -> dict[str, object]:
    """Create a batch over a file; return it as the reply shows it."""
    endpoint = "/v1/chat/completions"
    order = {"input_file_id": file_id, "endpoint": endpoint, "completion_window": "24h"}
    return _reply_json(server.api.post("/batches", json=order))


def wait_for_the_end(server: Serving, batch_id: str) -> None:
    """Return once a batch has completed; anything else that may become of it ends the program."""
    batch = _reply_json(server.api.get(f"/batches/{batch_id}"))
    batch = wait(server, batch, ENDED, DISPATCH_POLL_SECONDS)
    if batch["status"] != "completed":
        raise SystemExit(f"The batch did not complete: {batch}")


def wait(
    server: Serving, batch: dict[str, object], until: set[str], poll_seconds: float
) -> dict[str, object]:
    """Look again and again until a batch has one of these statuses; return it as it is then."""
    end = time.monotonic() + JOB_SECONDS_MAX
    while batch["status"] not in until:
        if time.monotonic() > end:
            raise SystemExit(f"The batch did not get on in {JOB_SECONDS_MAX:.0f} s: {batch}")
        time.sleep(poll_seconds)
        batch = _reply_json(server.api.get(f"/batches/{batch['id']}"))
    return batch


def check(server: Serving, batch: dict[str, object], job: Job) -> None:
    """End the program unless each line of a job came back once."""
    counts = {"total": job.lines, "completed": job.lines, "failed": 0}
    if batch["status"] != "completed" or batch["request_counts"] != counts:
        raise SystemExit(f"The batch did not complete: {batch}")
    names = set()
    with server.api.stream("GET", f"/files/{batch['output_file_id']}/content") as reply:
        reply.raise_for_status()
        lines = 0
        for line in reply.iter_lines():
            names.add(json.loads(line)["custom_id"])
            lines += 1
    if len(names) != job.lines or lines != job.lines:
        raise SystemExit(f"{lines} results of {len(names)} lines, {job.lines} were asked for.")


def _reply_json(reply: httpx.Response) -> dict[str, object]:
    if reply.is_error:
        raise SystemExit(f"{reply.request.url} answered {reply.status_code}: {reply.text}")
    fields = json.loads(reply.content)
    assert isinstance(fields, dict)
    return fields
