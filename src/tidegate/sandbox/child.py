"""The child process of a sandbox: it sends one call at a time, and ends when its parent is gone.

A line that would kill a processor must kill this process first, and no other one. Its memory is
bounded, the kernel kills it first when memory runs out, and it validates each reply as the
processor will.
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
from tidegate.sandbox.protocol import (
    HEAD_BYTES,
    ChildCall,
    ChildCrashed,
    ChildFault,
    ChildMessage,
    ChildReady,
    ChildReply,
    ChildSetup,
    call_from,
    child_fault_from,
    child_reply_from,
    encode_frame,
)
from tidegate.upstreams.base import Call, Reply, Upstream

OpenUpstream = Callable[[bytes], Upstream]
ReplyValidator = Callable[[Call, Reply], None]

READ_BYTES = 2**20
# The kernel's scale: the process with the highest score is killed first.
OOM_SCORE_MAX = "1000"
_OOM_SCORE_FILE = Path("/proc/self/oom_score_adj")
_IN, _OUT, _ERRORS = 0, 1, 2
_CRASHED = 70


def redirect_stdout() -> int:
    """Return a descriptor for answers; anything printed from now on goes to standard error."""
    out = os.dup(_OUT)
    os.dup2(_ERRORS, _OUT)
    return out


def isolate_process() -> None:
    """Make this process ignore stop signals, and the first that the kernel kills.

    A stop signal to the whole process group is meant for the parent, which then ends this process.
    No core is dumped, because it would contain prompts.
    """
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        _OOM_SCORE_FILE.write_text(OOM_SCORE_MAX)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


async def serve(open_upstream: OpenUpstream, validate_reply: ReplyValidator, *, out: int) -> None:
    """Answer calls until the process ends.

    Args:
        open_upstream: opens the upstream that the `detail` of the setup describes.
        validate_reply: is called with each call and its reply.
        out: the file descriptor of the answers.
    """
    try:
        inbox = await _inbox()
        setup = msgspec.msgpack.decode(await _frame(inbox), type=ChildSetup)
        _bound_memory(setup.memory_bytes_max)
        upstream = open_upstream(setup.detail)
        _write(out, ChildReady())
        calls: asyncio.Queue[bytes] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as group:
            group.create_task(_read_calls(inbox, calls), name="calls")
            while True:
                call = await calls.get()
                # A timer of the kernel: it ends the process even if the interpreter hangs.
                signal.setitimer(signal.ITIMER_REAL, setup.answer_seconds)
                answer = await _answer(upstream, validate_reply, call)
                _write(out, answer)
                signal.setitimer(signal.ITIMER_REAL, 0)
    except Exception as error:  # noqa: BLE001 - the outermost frame: the error is reported to the parent
        _write(out, ChildCrashed(_place(error)))
        os._exit(_CRASHED)


async def _inbox() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=READ_BYTES)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(_IN, "rb", buffering=0)
    )
    return reader


async def _frame(inbox: asyncio.StreamReader) -> bytes:
    """Read one frame. At the end of the stream, end the process."""
    try:
        size = int.from_bytes(await inbox.readexactly(HEAD_BYTES), "big")
        return await inbox.readexactly(size)
    except (asyncio.IncompleteReadError, OSError):
        _leave()


async def _read_calls(inbox: asyncio.StreamReader, calls: asyncio.Queue[bytes]) -> None:
    while True:
        await calls.put(await _frame(inbox))


async def _answer(
    upstream: Upstream, validate_reply: ReplyValidator, data: bytes
) -> ChildReply | ChildFault:
    call = call_from(msgspec.msgpack.decode(data, type=ChildCall))
    try:
        reply = await upstream.send(call)
    except UpstreamFault as fault:
        return child_fault_from(fault)
    except (MemoryError, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - any error of one call is a broken reply for the parent
        return child_fault_from(
            ReplyBroken(f"The call failed in the gateway itself: {type(error).__name__}.")
        )
    validate_reply(call, reply)
    return child_reply_from(reply)


def _bound_memory(size: int) -> None:
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _write(out: int, message: ChildMessage) -> None:
    left = memoryview(encode_frame(message))
    try:
        while left:
            left = left[os.write(out, left) :]
    except OSError:
        _leave()


def _place(error: BaseException) -> str:
    """Return the type and place of an error, without its text, which may quote a prompt."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _leave() -> NoReturn:
    """End the process: the parent is gone."""
    os._exit(0)
