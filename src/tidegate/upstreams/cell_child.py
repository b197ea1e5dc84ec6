"""The child's side of a cell: one call at a time, and an end at once when nobody listens any more.

Whatever could kill a processor is meant to kill this process first, and alone: it may use so much
memory and no more, the kernel takes it before any other when memory runs out, and it looks at each
reply as the processor will.
"""

import asyncio
import contextlib
import os
import resource
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import msgspec

from tidegate.domain.errors import ReplyBroken, UpstreamFault
from tidegate.upstreams.base import Call, Reply, Upstream
from tidegate.upstreams.cell_frames import (
    HEAD_BYTES,
    Answer,
    Crashed,
    Fault,
    Question,
    Ready,
    Said,
    Setup,
    answer_of,
    call_of,
    fault_of,
    framed,
)

OpenUpstream = Callable[[bytes], Upstream]
Rehearse = Callable[[Call, Reply], None]

READ_BYTES = 2**20
# The kernel's own scale: whoever has the most is taken first.
OOM_SCORE_MOST = "1000"
_OOM_SCORE_FILE = Path("/proc/self/oom_score_adj")
_IN, _OUT, _ERRORS = 0, 1, 2
_CRASHED = 70


def own_output() -> int:
    """Return where answers go; whatever else is printed from now on goes with the errors."""
    out = os.dup(_OUT)
    os.dup2(_ERRORS, _OUT)
    return out


def stand_alone() -> None:
    """Prepare this process to die alone, and by its parent's will only.

    A stop signal that is sent to the whole group is for the parent, which ends this process in
    its own time. No core is dumped, as it would hold prompts.
    """
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        _OOM_SCORE_FILE.write_text(OOM_SCORE_MOST)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


async def serve(open_upstream: OpenUpstream, rehearse: Rehearse, *, out: int) -> None:
    """Answer calls until the process is ended: by its parent, by a line, or by itself.

    `open_upstream` gets the `detail` of the setup, `rehearse` each reply with its call. The answers
    go to the file descriptor `out`.
    """
    try:
        inbox = await _inbox()
        setup = msgspec.msgpack.decode(await _frame(inbox), type=Setup)
        _bound_memory(setup.memory_bytes_max)
        upstream = open_upstream(setup.detail)
        _say(out, Ready())
        questions: asyncio.Queue[bytes] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(_listen(inbox, questions), name="questions")
            while True:
                question = await questions.get()
                # An answer that never comes ends the process even where Python's code never runs.
                signal.setitimer(signal.ITIMER_REAL, setup.answer_seconds)
                said = await _answer(upstream, rehearse, question)
                _say(out, said)
                signal.setitimer(signal.ITIMER_REAL, 0)
    except Exception as error:  # noqa: BLE001 - the edge of a process: the parent hears what ended it
        _say(out, Crashed(_place(error)))
        os._exit(_CRASHED)


async def _inbox() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=READ_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(_IN, "rb", buffering=0)
    )
    return reader


async def _frame(inbox: asyncio.StreamReader) -> bytes:
    """Read one frame; the end of the stream is the end of the process."""
    try:
        size = int.from_bytes(await inbox.readexactly(HEAD_BYTES), "big")
        return await inbox.readexactly(size)
    except (asyncio.IncompleteReadError, OSError):
        _leave()


async def _listen(inbox: asyncio.StreamReader, questions: asyncio.Queue[bytes]) -> None:
    while True:
        await questions.put(await _frame(inbox))


async def _answer(upstream: Upstream, rehearse: Rehearse, data: bytes) -> Answer | Fault:
    call = call_of(msgspec.msgpack.decode(data, type=Question))
    try:
        reply = await upstream.send(call)
    except UpstreamFault as fault:
        return fault_of(fault)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - the edge of a call: the parent takes it for a broken reply too
        return fault_of(
            ReplyBroken(f"The call failed in the gateway itself: {type(error).__name__}.")
        )
    rehearse(call, reply)
    return answer_of(reply)


def _bound_memory(size: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _say(out: int, said: Said) -> None:
    left = memoryview(framed(said))
    try:
        while left:
            left = left[os.write(out, left) :]
    except OSError:
        _leave()


def _place(error: BaseException) -> str:
    """Say what an error is and where it came up, without its words: these may quote a prompt."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _leave() -> NoReturn:
    """End at once: nobody is left to hear an answer."""
    os._exit(0)
