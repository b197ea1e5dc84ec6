"""A sandbox that sends its calls from a child process.

The child is started by the first call, and lives until it dies, a call is cancelled, or the sandbox
is closed. All its settings are sent through its standard input.
"""

import asyncio
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from typing_extensions import override

from tidegate.domain.errors import ConnectFailed, SandboxDied, SandboxNotStarted, SettingsInvalid
from tidegate.sandbox.base import Sandbox
from tidegate.sandbox.protocol import (
    ChildCrashed,
    ChildFault,
    ChildMessage,
    ChildReady,
    ChildReply,
    ChildSetup,
    FrameBuffer,
    InvalidFrame,
    child_call_from,
    decode_child_message,
    encode_frame,
    error_from,
    reply_from,
)
from tidegate.upstreams.base import Call, Reply

# How long to read the output of a child that has ended. A process that the child started could keep
# the output open.
OUTPUT_DRAIN_SECONDS = 1.0
# How much longer than the child's own timer the parent waits for an answer.
ANSWER_GRACE_SECONDS = 5.0
_OUT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSandboxSettings:
    """How a child is started, and its bounds. `detail` is decoded by the child's program.

    An answer may have `answer_bytes_max` bytes with its frame, and take `answer_seconds`.
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
            raise SettingsInvalid("The bounds of a sandbox must be above 0.")


class ProcessSandbox(Sandbox):
    """Sends calls through one child process at a time."""

    def __init__(self, settings: ProcessSandboxSettings) -> None:
        """Take the settings; nothing is started yet."""
        self.settings = settings
        self._turn = asyncio.Lock()
        self._child: _Child | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Return the child's process id while there is one."""
        return self._child.pid if self._child is not None else None

    @property
    def is_alive(self) -> bool:
        """Return whether there is a child that takes calls."""
        return self._child is not None and not self._child.is_over

    @override
    async def send(self, call: Call) -> Reply:
        async with self._turn:
            if self._closed:
                raise ConnectFailed(
                    "This sandbox was closed: nothing can be sent through it any more."
                )
            child = self._child
            if child is None or child.is_over:
                # It ended while it was idle, so this line is not the cause.
                await self._end()
                child = await self._start()
            try:
                limit = self.settings.answer_seconds + ANSWER_GRACE_SECONDS
                message = await child.ask(encode_frame(child_call_from(call)), limit)
                return _reply(message)
            except InvalidFrame as error:
                await self._end()
                raise SandboxDied(f"The child process was ended: {error}.") from error
            except (SandboxDied, asyncio.CancelledError):
                await self._end()
                raise

    @override
    async def aclose(self) -> None:
        self._closed = True
        await self._end()

    async def _start(self) -> "_Child":
        settings = self.settings
        setup = ChildSetup(settings.detail, settings.memory_bytes_max, settings.answer_seconds)
        self._child = child = _Child(settings.answer_bytes_max)
        try:
            await child.start(settings.command)
            message = await child.ask(encode_frame(setup), settings.start_seconds)
        except (OSError, SandboxDied, InvalidFrame) as error:
            await self._end()
            raise SandboxNotStarted(f"No child process could be started: {error}") from error
        except asyncio.CancelledError:
            await self._end()
            raise
        if not isinstance(message, ChildReady):
            await self._end()
            why = (
                message.what if isinstance(message, ChildCrashed) else "it is not what it should be"
            )
            raise SandboxNotStarted(f"No child process could be started: {why}.")
        return child

    async def _end(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end()


def _reply(message: ChildMessage) -> Reply:
    """Return the reply in the message of a child.

    Raises:
        UpstreamFault: the call failed.
        SandboxDied: the child reported that it ends.
        InvalidFrame: the message is no answer to a call.
    """
    if isinstance(message, ChildReply):
        return reply_from(message)
    if isinstance(message, ChildFault):
        raise error_from(message)
    if isinstance(message, ChildCrashed):
        raise SandboxDied(f"The child process ended by an error: {message.what}.")
    raise InvalidFrame("it did not answer the call")


class _Child(asyncio.SubprocessProtocol):
    """One child process, from its start until it has ended and was waited for."""

    def __init__(self, answer_bytes_max: int) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._buffer = FrameBuffer(answer_bytes_max)
        self._transport: asyncio.SubprocessTransport | None = None
        self._waiter: asyncio.Future[bytes] | None = None
        self._error: SandboxDied | InvalidFrame | None = None
        self._exited: asyncio.Future[None] = loop.create_future()
        self._out_closed = False

    @property
    def pid(self) -> int | None:
        """Return its process id, once it has one."""
        return self._transport.get_pid() if self._transport is not None else None

    @property
    def is_over(self) -> bool:
        """Return whether it can no longer answer."""
        return self._error is not None or self._exited.done() or self._out_closed

    async def start(self, command: tuple[str, ...]) -> None:
        """Start the process in its own session: signals to our group do not reach it.

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

    async def ask(self, frame: bytes, seconds: float) -> ChildMessage:
        """Send a frame and return the child's answer.

        Raises:
            SandboxDied: it ended, or did not answer within `seconds`.
            InvalidFrame: its answer can't be decoded.
        """
        if self._error is not None:
            raise self._error
        assert self._waiter is None, "one call at a time"
        assert self._transport is not None, "not started"
        waiter = self._waiter = self._loop.create_future()
        stdin = cast("asyncio.WriteTransport", self._transport.get_pipe_transport(0))
        stdin.write(frame)
        try:
            async with asyncio.timeout(seconds):
                return decode_child_message(await waiter)
        except TimeoutError:
            raise SandboxDied(
                f"The child process gave no answer in {seconds:g} seconds and was ended."
            ) from None
        finally:
            self._waiter = None

    async def end(self) -> None:
        """Kill the process if it still runs, and wait until it has ended."""
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
        except InvalidFrame as error:
            self._fail(error)
            return
        for frame in frames:
            if self._waiter is None or self._waiter.done():
                self._fail(InvalidFrame("it sent a message without a call"))
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
        """Fail the call once the process has ended and its output is read."""
        if self._exited.done() and self._out_closed:
            self._fail(SandboxDied(self._end_reason()))
        else:
            self._loop.call_later(
                OUTPUT_DRAIN_SECONDS, lambda: self._fail(SandboxDied(self._end_reason()))
            )

    def _end_reason(self) -> str:
        assert self._transport is not None, "not started"
        status = self._transport.get_returncode()
        if status is None:
            return "The child process closed its output and was ended."
        if status < 0:
            return f"The child process was ended by {signal.Signals(-status).name}."
        return f"The child process ended with status {status}."

    def _fail(self, error: SandboxDied | InvalidFrame) -> None:
        if self._error is None:
            self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(self._error)
