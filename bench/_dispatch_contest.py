"""The contestants of `./run bench dispatch`, each as a call that returns what it cost."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from _dispatch_job import Cost, Job, OurCost
from _dispatch_ours import run_batch, serving
from _fast_upstream import FastUpstream, fast_upstream
from _go import program, toolchain
from _machine import Cores, interpreted, starting_on

from tidegate.runtime.interpreter import is_compiled

PEER_SECONDS_MAX = 600.0
# Their cost for each request does not depend on how many there are, only our patience does.
AIOHTTP_REQUESTS_MAX = 20_000
HTTPX_REQUESTS_MAX = 500
PEERS = Path(__file__).parent / "_dispatch_peers.py"
CHAT = "/v1/chat/completions"

OURS, OURS_TLS, OURS_PLAIN = "tidegate", "tidegate, TLS", "tidegate, not compiled"
GO, AIOHTTP, HTTPX = "Go client", "aiohttp", "httpx"


@dataclass(frozen=True)
class Arena:
    """Both servers, and the core for who is measured."""

    folder: Path
    cores: Cores
    plain: FastUpstream
    tls: FastUpstream | None


def open_arena(folder: Path, cores: Cores, stack: ExitStack) -> Arena:
    """Start the servers that all contestants share; without Go there is none with TLS."""
    plain = stack.enter_context(fast_upstream(folder, cores.others))
    tls = None
    if toolchain() is not None:
        tls = stack.enter_context(fast_upstream(folder, cores.others, tls=True))
    return Arena(folder, cores, plain, tls)


def contestants(job: Job, arena: Arena, *, all_of_them: bool) -> dict[str, Callable[[], Cost]]:
    """Return who can take part here, in the order of a round.

    Only ours, the Go client and aiohttp do where not all are asked for.
    """
    found: dict[str, Callable[[], Cost]] = {OURS: lambda: _ours(job, arena, arena.plain)}
    if toolchain() is not None:
        found[GO] = lambda: _go_client(job, arena)
    if importlib.util.find_spec("aiohttp") is not None:
        found[AIOHTTP] = lambda: _peer("aiohttp", job, arena, AIOHTTP_REQUESTS_MAX)
    if all_of_them:
        if arena.tls is not None:
            tls = arena.tls
            found[OURS_TLS] = lambda: _ours(job, arena, tls)
        if is_compiled():
            found[OURS_PLAIN] = lambda: _ours(job, arena, arena.plain, interpreted())
        found[HTTPX] = lambda: _peer("httpx", job, arena, HTTPX_REQUESTS_MAX)
    return found


def _ours(
    job: Job, arena: Arena, upstream: FastUpstream, env: Mapping[str, str] | None = None
) -> OurCost:
    folder, core = arena.folder / "serve", arena.cores.measured
    shutil.rmtree(folder, ignore_errors=True)
    with serving(folder, upstream, job.concurrency, core, env=env) as server:
        return run_batch(server, upstream, job)


def _go_client(job: Job, arena: Arena) -> Cost:
    options = {
        "url": arena.plain.url + CHAT,
        "requests": job.lines,
        "concurrency": job.concurrency,
        "bytes": job.body_bytes,
    }
    command = [str(program("client")), *(f"-{name}={value}" for name, value in options.items())]
    return _run(command, arena, {"GOMAXPROCS": "1"})


def _peer(name: str, job: Job, arena: Arena, requests_max: int) -> Cost:
    output = arena.folder / "peer.jsonl"
    options = {
        "url": arena.plain.url,
        "input": job.path,
        "output": output,
        "requests": min(job.lines, requests_max),
        "concurrency": job.concurrency,
    }
    command = [sys.executable, "-P", str(PEERS), name]
    cost = _run([*command, *(f"--{key}={value}" for key, value in options.items())], arena, {})
    with output.open("rb") as lines:
        written = sum(1 for _ in lines)
    if written != cost.requests:
        raise SystemExit(f"{name} wrote {written} results for {cost.requests} requests.")
    return cost


def _run(command: list[str], arena: Arena, extra: Mapping[str, str]) -> Cost:
    """Run a contestant that reports its own cost in its last line."""
    asked = arena.plain.requests()
    with starting_on(arena.cores.measured):
        done = subprocess.run(
            command,
            env={**os.environ, **extra},
            stdout=subprocess.PIPE,
            check=True,
            timeout=PEER_SECONDS_MAX,
        )
    cost = Cost(**json.loads(done.stdout.splitlines()[-1]))
    if arena.plain.requests() - asked != cost.requests:
        raise SystemExit(f"{command[0]} did not send the {cost.requests} requests that it reports.")
    return cost
