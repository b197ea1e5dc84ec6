"""A cell whose calls are carried by a child process.

The child is started with the first call, and stays from call to call until it dies, a call is
cancelled, or the cell is closed. Everything that it has to know goes through its standard input.
"""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from typing_extensions import override

from tidegate.domain.errors import CellDied, CellNotStarted, ConnectFailed, SettingsInvalid
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.cell import Cell
from tidegate.upstreams.cell_frames import (
    Answer,
    Crashed,
    Fault,
    FrameBroken,
    FrameBuffer,
    Ready,
    Said,
    Setup,
    error_of,
    framed,
    question_of,
    read_said,
    reply_of,
)

# Until the last words of a child that has ended are given up, where another process of its making
# keeps its output open.
LAST_WORDS_SECONDS = 1.0
# How much longer than its own timer the child has for an answer.
ANSWER_GRACE_SECONDS = 5.0
_OUT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CellSettings:
    """How a child is started and what it may cost. `detail` is what its program has to know.

    An answer may have `answer_bytes_max` bytes with its framing, and take `answer_seconds`.
    """

    command: tuple[str, ...]
    memory_bytes_max: int
    answer_bytes_max: int
    answer_seconds: float
    start_seconds: float
    detail: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        numbers = (self.memory_bytes_max, self.answer_bytes_max)
        if min(*numbers, self.answer_seconds, self.start_seconds) <= 0:
            raise SettingsInvalid("The bounds of a cell must be above 0.")


class ProcessCell(Cell):
    """Sends calls through one child process at a time."""

    def __init__(self, settings: CellSettings) -> None:
        """Take the settings; nothing is started yet."""
        self.settings = settings
        self._turn = asyncio.Lock()
        self._child: _Child | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Return the child's number while there is one."""
        return self._child.pid if self._child is not None else None

    @property
    def is_alive(self) -> bool:
        """Say whether there is a child that takes calls."""
        return self._child is not None and not self._child.is_over

    @override
    async def send(self, call: Call) -> Reply:
        async with self._turn:
            if self._closed:
                raise ConnectFailed(
                    "This cell was closed: nothing can be sent through it any more."
                )
            child = self._child
            if child is None or child.is_over:
                # Whatever ended it while it idled was not this line.
                await self._end()
                child = await self._start()
            try:
                limit = self.settings.answer_seconds + ANSWER_GRACE_SECONDS
                said = await child.ask(framed(question_of(call)), limit)
                return _reply(said)
            except FrameBroken as error:
                await self._end()
                raise CellDied(f"The child process was ended: {error}.") from error
            except (CellDied, asyncio.CancelledError):
                await self._end()
                raise

    @override
    async def aclose(self) -> None:
        self._closed = True
        await self._end()

    async def _start(self) -> "_Child":
        settings = self.settings
        setup = Setup(settings.detail, settings.memory_bytes_max, settings.answer_seconds)
        self._child = child = _Child(settings.answer_bytes_max)
        try:
            await child.start(settings.command)
            said = await child.ask(framed(setup), settings.start_seconds)
        except (OSError, CellDied, FrameBroken) as error:
            await self._end()
            raise CellNotStarted(f"No child process could be started: {error}") from error
        except asyncio.CancelledError:
            await self._end()
            raise
        if not isinstance(said, Ready):
            await self._end()
            why = said.what if isinstance(said, Crashed) else "it is not what it should be"
            raise CellNotStarted(f"No child process could be started: {why}.")
        return child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


def _reply(said: Said) -> Reply:
    """Return the reply that a child brought.

    Raises:
        UpstreamFault: it met one.
        CellDied: it met its end.
        FrameBroken: it is no answer.
    """
    if isinstance(said, Answer):
        return reply_of(said)
    if isinstance(said, Fault):
        raise error_of(said)
    if isinstance(said, Crashed):
        raise CellDied(f"The child process ended by an error: {said.what}.")
    raise FrameBroken("it did not answer the call")


class _Child(asyncio.SubprocessProtocol):
    """One child process, from its start until it is reaped."""

    def __init__(self, answer_bytes_max: int) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._buffer = FrameBuffer(answer_bytes_max)
        self._transport: asyncio.SubprocessTransport | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._error: CellDied | FrameBroken | None = None
        self._exited: asyncio.Future[None] = loop.create_future()
        self._out_closed = False

    @property
    def pid(self) -> int | None:
        """Return its number, once it has one."""
        return self._transport.get_pid() if self._transport is not None else None

    @property
    def is_over(self) -> bool:
        """Say whether it can answer no more."""
        return self._error is not None or self._exited.done() or self._out_closed

    async def start(self, command: tuple[str, ...]) -> None:
        """Start the process, out of reach of signals to our own group.

        Raises:
            OSError: it could not be started.
        """
        factory: Callable[[], _Child] = lambda: self  # noqa: E731 - typed, which a lambda in a call is not
        await self._loop.subprocess_exec(
            factory,
            *command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    async def ask(self, frame: bytes, seconds: float) -> Said:
        """Say something, and return what the child says to it.

        Raises:
            CellDied: it ended, or said nothing in so many seconds.
            FrameBroken: what it said makes no sense.
        """
        if self._error is not None:
            raise self._error
        assert self._waiter is None, "one question at a time"
        assert self._transport is not None, "not started"
        waiter = self._waiter = self._loop.create_future()
        stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        stdin.write(frame)
        try:
            async with asyncio.timeout(seconds):
                return read_said(await waiter)
        except TimeoutError:
            raise CellDied(
                f"The child process gave no answer in {seconds:g} seconds and was ended."
            ) from None
        finally:
            self._waiter = None

    async def end(self) -> None:
        """End the process if it still runs, and wait until nothing is left of it."""
        transport = self._transport
        if transport is None:
            return
        try:
            if not self._exited.done():
                transport.kill()
                await self._exited
        except ProcessLookupError:
            await self._exited
        finally:
            transport.close()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.SubprocessTransport", transport)

    @override
    def pipe_data_received(self, fd: int, data: bytes) -> None:
        try:
            frames = self._buffer.feed(data)
        except FrameBroken as error:
            self._fail(error)
            return
        for frame in frames:
            if self._waiter is None or self._waiter.done():
                self._fail(FrameBroken("it spoke without being asked"))
                return
            self._waiter.set_result(frame)

    @override
    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == _OUT:
            self._out_closed = True
            self._on_ending()

    @override
    def process_exited(self) -> None:
        if not self._exited.done():
            self._exited.set_result(None)
        self._on_ending()

    def _on_ending(self) -> None:
        """Give up the answer once the process has ended and its last words are read."""
        if self._exited.done() and self._out_closed:
            self._fail(CellDied(self._how()))
        else:
            self._loop.call_later(LAST_WORDS_SECONDS, lambda: self._fail(CellDied(self._how())))

    def _how(self) -> str:
        assert self._transport is not None, "not started"
        status = self._transport.get_returncode()
        if status is None:
            return "The child process closed its output and was ended."
        if status < 0:
            return f"The child process was ended by {signal.Signals(-status).name}."
        return f"The child process ended with status {status}."

    def _fail(self, error: CellDied | FrameBroken) -> None:
        if self._error is None:
            self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._error)
