"""`python -m tidegate.cell`: the child process of a cell in front of an HTTP model server.

`python -m tidegate.cell plan` is that of a cell in which a batch is planned.

Composed here and not in the wiring, so that a child starts without the API, the stores and
everything else that it has no need of.
"""

import sys
import tempfile
from pathlib import Path
from typing import BinaryIO

import msgspec
import uvloop

from tidegate.processor.outcome import judge_reply
from tidegate.processor.plan_door import PlanDoor, PlanTask
from tidegate.upstreams.base import Call, Reply, Upstream
from tidegate.upstreams.cell_child import Rehearse, own_output, serve, stand_alone
from tidegate.upstreams.cell_process import CellSettings, ProcessCell
from tidegate.upstreams.http import HttpUpstream, ProxiedUpstream
from tidegate.upstreams.settings import HttpSettings

# What an answer needs beside the reply's head and body.
FRAMING_BYTES = 64 * 1024
# How much later than the upstream's own time-out a child counts as hung.
HUNG_SECONDS = 30.0
COMMAND = (sys.executable, "-P", "-m", "tidegate.cell")
PLAN_COMMAND = (*COMMAND, "plan")
# Until a child that reads a line, judges all of them or cuts a slice counts as hung.
PLAN_SECONDS = 120.0
# What one problem of a batch takes at most: names in it are bounded.
PROBLEM_BYTES = 8 * 1024


def http_cell(
    settings: HttpSettings, *, memory_bytes_max: int, start_seconds: float
) -> ProcessCell:
    """Return a cell whose calls go to one HTTP server; nothing is started yet."""
    limits = settings.limits
    return ProcessCell(
        CellSettings(
            command=COMMAND,
            detail=msgspec.msgpack.encode(settings, enc_hook=_plain),
            memory_bytes_max=memory_bytes_max,
            answer_bytes_max=limits.body_bytes_max + 2 * limits.header_bytes_max + FRAMING_BYTES,
            answer_seconds=settings.timeouts.total_seconds + HUNG_SECONDS,
            start_seconds=start_seconds,
        )
    )


def plan_cell(
    task: PlanTask, *, scratch: Path, memory_bytes_max: int, start_seconds: float
) -> ProcessCell:
    """Return a cell in which one batch is planned; it sorts in the folder `scratch`."""
    planning = task.planning
    largest = max(planning.shard_bytes_max, planning.line_bytes_max)
    return ProcessCell(
        CellSettings(
            command=PLAN_COMMAND,
            detail=msgspec.msgpack.encode((task, str(scratch))),
            memory_bytes_max=memory_bytes_max,
            answer_bytes_max=largest + PROBLEM_BYTES * planning.errors_max + FRAMING_BYTES,
            answer_seconds=PLAN_SECONDS,
            start_seconds=start_seconds,
        )
    )


def open_plan(detail: bytes) -> PlanDoor:
    """Open the door to the planning that `plan_cell` described."""
    task, scratch = msgspec.msgpack.decode(detail, type=tuple[PlanTask, str])

    def make_scratch() -> BinaryIO:
        return tempfile.TemporaryFile(dir=scratch, buffering=0)

    return PlanDoor(task, make_scratch)


def open_upstream(settings: HttpSettings) -> Upstream:
    """Open the one back-end that does what the settings ask for.

    Raises:
        SettingsInvalid: a file of its TLS settings can't be used.
    """
    if settings.proxied_by is not None and settings.origin.scheme == "http":
        return ProxiedUpstream(settings)
    return HttpUpstream(settings)


def open_http(detail: bytes) -> Upstream:
    """Open the upstream that `http_cell` described.

    Raises:
        SettingsInvalid: a file of its TLS settings can't be used.
    """
    return open_upstream(unpacked(detail))


def unpacked(detail: bytes) -> HttpSettings:
    """Return the settings that `http_cell` was given."""
    return msgspec.msgpack.decode(detail, type=HttpSettings, dec_hook=_rich)


def rehearse(call: Call, reply: Reply) -> None:
    """Judge a reply just as the processor will: if that kills a process, then this one."""
    judge_reply(reply, call.headers.get("x-request-id", ""), b'""', starting=True)


def _no_rehearsal(_call: Call, _reply: Reply) -> None:
    """Look at nothing: what plans a batch has judged all that there is."""


def _plain(value: object) -> str:
    assert isinstance(value, Path), value
    return str(value)


def _rich(kind: type, value: object) -> object:
    assert kind is Path, kind
    return Path(str(value))


def main() -> None:
    """Be the child of a cell."""
    out = own_output()
    stand_alone()
    if sys.argv[1:] == ["plan"]:
        uvloop.run(serve(open_plan, _no_rehearsal, out=out))
    else:
        run: Rehearse = rehearse
        uvloop.run(serve(open_http, run, out=out))


if __name__ == "__main__":
    main()
