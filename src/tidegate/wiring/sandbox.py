"""`python -m tidegate.wiring.sandbox`: the child process of a sandbox that calls a model server.

`python -m tidegate.wiring.sandbox plan` is the child process of a sandbox that plans a batch. This
module must not import API and stores: the child would start slower and hold more than it needs.
"""

import sys
import tempfile
from pathlib import Path

import msgspec
import uvloop

from tidegate.endpoints.classify import classify_reply
from tidegate.planning.sandboxed import PlanningTask, SandboxedPlanner
from tidegate.sandbox.child import isolate_process, redirect_stdout, serve
from tidegate.sandbox.process import ProcessSandbox, ProcessSandboxSettings
from tidegate.upstreams.base import Call, Reply, Upstream
from tidegate.upstreams.http1.upstream import HttpUpstream, ProxiedUpstream
from tidegate.upstreams.settings import HttpSettings

# The bytes of an answer besides the head and the body of the reply.
FRAMING_BYTES = 64 * 1024
# How long after the upstream's own time-out a child is considered hung.
HUNG_SECONDS = 30.0
COMMAND = (sys.executable, "-P", "-m", "tidegate.wiring.sandbox")
PLAN_COMMAND = (*COMMAND, "plan")
# How long a child may take to read a line, validate all lines or return a slice.
PLAN_SECONDS = 120.0
# The largest size of one problem of a batch; names in it are bounded.
PROBLEM_BYTES = 8 * 1024


def http_sandbox(
    settings: HttpSettings, *, memory_bytes_max: int, start_seconds: float
) -> ProcessSandbox:
    """Return a sandbox whose calls go to one HTTP server; nothing is started yet."""
    limits = settings.limits
    return ProcessSandbox(
        ProcessSandboxSettings(
            command=COMMAND,
            detail=msgspec.msgpack.encode(settings, enc_hook=_plain),
            memory_bytes_max=memory_bytes_max,
            answer_bytes_max=limits.body_bytes_max + 2 * limits.header_bytes_max + FRAMING_BYTES,
            answer_seconds=settings.timeouts.total_seconds + HUNG_SECONDS,
            start_seconds=start_seconds,
        )
    )


def planning_sandbox(
    task: PlanningTask, *, scratch: Path, memory_bytes_max: int, start_seconds: float
) -> ProcessSandbox:
    """Return a sandbox that plans one batch; it sorts in the folder `scratch`."""
    planning = task.planning
    largest = max(planning.shard_bytes_max, planning.line_bytes_max)
    return ProcessSandbox(
        ProcessSandboxSettings(
            command=PLAN_COMMAND,
            detail=msgspec.msgpack.encode((task, str(scratch))),
            memory_bytes_max=memory_bytes_max,
            answer_bytes_max=largest + PROBLEM_BYTES * planning.errors_max + FRAMING_BYTES,
            answer_seconds=PLAN_SECONDS,
            start_seconds=start_seconds,
        )
    )


def open_planning(detail: bytes) -> SandboxedPlanner:
    """Open the planner that `planning_sandbox` described."""
    task, scratch = msgspec.msgpack.decode(detail, type=tuple[PlanningTask, str])
    return SandboxedPlanner(task, lambda: tempfile.TemporaryFile(dir=scratch, buffering=0))


def open_upstream(settings: HttpSettings) -> Upstream:
    """Open the back-end that the settings ask for.

    Raises:
        SettingsInvalid: a file of its TLS settings can't be used.
    """
    if settings.proxied_by is not None and settings.origin.scheme == "http":
        return ProxiedUpstream(settings)
    return HttpUpstream(settings)


def open_http_upstream(detail: bytes) -> Upstream:
    """Open the upstream that `http_sandbox` described.

    Raises:
        SettingsInvalid: a file of its TLS settings can't be used.
    """
    return open_upstream(decode_http_settings(detail))


def decode_http_settings(detail: bytes) -> HttpSettings:
    """Return the settings that `http_sandbox` was given."""
    return msgspec.msgpack.decode(detail, type=HttpSettings, dec_hook=_rich)


def validate_reply(call: Call, reply: Reply) -> None:
    """Classify a reply as the processor will: if that kills a process, it kills this one."""
    classify_reply(reply, call.headers.get("x-request-id", ""), b'""', starting=True)


def _accept_reply(_call: Call, _reply: Reply) -> None:
    """Accept any reply: the planner validates the lines itself."""


def _plain(value: object) -> str:
    assert isinstance(value, Path), value
    return str(value)


def _rich(kind: type, value: object) -> object:
    assert kind is Path, kind
    return Path(str(value))


def main() -> None:
    """Run the child process of a sandbox."""
    out = redirect_stdout()
    isolate_process()
    if sys.argv[1:] == ["plan"]:
        uvloop.run(serve(open_planning, _accept_reply, out=out))
    else:
        uvloop.run(serve(open_http_upstream, validate_reply, out=out))


if __name__ == "__main__":
    main()
