"""`python -m tidegate.cell`: the child process of a cell in front of an HTTP model server.

Composed here and not in the wiring, so that a child starts without the API, the stores and
everything else that it has no need of.
"""

import sys
from pathlib import Path

import msgspec
import uvloop

from tidegate.processor.outcome import judge_reply
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.cell_child import Rehearse, own_output, serve, stand_alone
from tidegate.upstreams.cell_process import CellSettings, ProcessCell
from tidegate.upstreams.http import HttpUpstream
from tidegate.upstreams.settings import HttpSettings

# What an answer needs beside the reply's head and body.
FRAMING_BYTES = 64 * 1024
# How much later than the upstream's own time-out a child counts as hung.
HUNG_SECONDS = 30.0
COMMAND = (sys.executable, "-P", "-m", "tidegate.cell")


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


def open_http(detail: bytes) -> HttpUpstream:
    """Open the upstream that `http_cell` described.

    Raises:
        SettingsInvalid: a file of its TLS settings can't be used.
    """
    return HttpUpstream(unpacked(detail))


def unpacked(detail: bytes) -> HttpSettings:
    """Return the settings that `http_cell` was given."""
    return msgspec.msgpack.decode(detail, type=HttpSettings, dec_hook=_rich)


def rehearse(call: Call, reply: Reply) -> None:
    """Judge a reply just as the processor will: if that kills a process, then this one."""
    judge_reply(reply, call.headers.get("x-request-id", ""), b'""', starting=True)


def _plain(value: object) -> str:
    assert isinstance(value, Path), value
    return str(value)


def _rich(kind: type, value: object) -> object:
    assert kind is Path, kind
    return Path(str(value))


def main() -> None:
    """Be the child of a cell."""
    run: Rehearse = rehearse
    out = own_output()
    stand_alone()
    uvloop.run(serve(open_http, run, out=out))


if __name__ == "__main__":
    main()
