"""Child processes that are restarted when they die, and end with their parent in every case."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Protocol

from tidegate.supervisor.control_pipe import STOP_REQUEST

RESTART_SECONDS_MIN = 0.5
RESTART_SECONDS_MAX = 30.0
STABLE_SECONDS = 60.0
START_SECONDS_MAX = 30.0
CANCELLED_SECONDS_MAX = 5.0
_READ_BYTES = 4_096


class ChildProcess(Protocol):
    """One process that was started."""

    @property
    def pid(self) -> int:
        """Return its process id."""

    async def ready(self) -> str:
        """Return the line that it prints once it works; empty if it ended without one."""

    async def wait(self) -> int:
        """Return its exit status once it has ended. Called after `ready`."""

    def request_stop(self) -> None:
        """Ask it to stop; the second request asks it to end immediately."""

    def kill(self) -> None:
        """Kill it."""


class SupervisorListener(Protocol):
    """Is called when the state of a child changes. Methods return immediately and never raise."""

    def child_started(self, name: str, pid: int, said: str) -> None:
        """Record that a child works; `said` is its ready line."""

    def child_ended(self, name: str, why: str, restart_seconds: float) -> None:
        """Record that a child ended unasked; it is restarted after `restart_seconds`."""

    def child_overdue(self, name: str, pid: int, *, killed: bool) -> None:
        """Record that a child did not end in time: it is killed, or asked to end immediately."""


class _Slot:
    """The place of one child and, after it, of its successors."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settled = asyncio.Event()
        self.is_alive = False
        self.child: ChildProcess | None = None
        self.scope: asyncio.Timeout | None = None
        self.stop_timer: asyncio.TimerHandle | None = None
        self.stop_requests = 0


class Supervisor:
    """A service that keeps one child running for each name, until it is stopped.

    A child that ends unasked is restarted after a pause that doubles from `RESTART_SECONDS_MIN` to
    `RESTART_SECONDS_MAX`; after a life of `STABLE_SECONDS` it starts again at the shortest one.
    After `stop` a child has `stop_seconds` to end, then it alone is aborted; after `abort` it has
    `abort_seconds`, then it is killed.
    """

    def __init__(
        self,
        names: Sequence[str],
        start: Callable[[str], Awaitable[ChildProcess]],
        listener: SupervisorListener,
        *,
        stop_seconds: float,
        abort_seconds: float,
    ) -> None:
        self._slots = [_Slot(name) for name in names]
        self._start = start
        self._listener = listener
        self._stop_seconds = stop_seconds
        self._abort_seconds = abort_seconds
        self._stop_requests = 0
        self._stopped = asyncio.Event()

    @property
    def count(self) -> int:
        """Return how many children there should be."""
        return len(self._slots)

    @property
    def alive(self) -> int:
        """Return how many have reported that they work and have not ended since."""
        return sum(slot.is_alive for slot in self._slots)

    async def wait_until_settled(self) -> None:
        """Return once each child works or has failed once, or after `START_SECONDS_MAX`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS_MAX):
                for slot in self._slots:
                    await slot.settled.wait()

    async def run(self) -> None:
        """Run the children until stopped; none is left when this returns."""
        async with asyncio.TaskGroup() as group:
            for slot in self._slots:
                group.create_task(self._run_slot(slot), name=slot.name)

    def stop(self) -> None:
        """Ask every child to stop, and start no more of them."""
        self._request(1)

    def abort(self) -> None:
        """Ask every child to end immediately."""
        self._request(2)

    def _request(self, stop_requests: int) -> None:
        self._stop_requests = max(self._stop_requests, stop_requests)
        self._stopped.set()
        for slot in self._slots:
            self._forward(slot, self._stop_requests)

    def _forward(self, slot: _Slot, stop_requests: int) -> None:
        """Send stop requests to a child until it has received `stop_requests` of them."""
        if slot.child is None or slot.scope is None or slot.stop_requests >= stop_requests:
            return
        for _ in range(stop_requests - slot.stop_requests):
            slot.child.request_stop()
        slot.stop_requests = stop_requests
        loop = asyncio.get_running_loop()
        if stop_requests > 1:
            slot.scope.reschedule(loop.time() + self._abort_seconds)
        else:
            slot.stop_timer = loop.call_later(self._stop_seconds, self._abort_overdue, slot)

    def _abort_overdue(self, slot: _Slot) -> None:
        """Abort one child that was stopped and has not ended in time."""
        if slot.child is not None and slot.stop_requests == 1:
            self._listener.child_overdue(slot.name, slot.child.pid, killed=False)
            self._forward(slot, 2)

    async def _run_slot(self, slot: _Slot) -> None:
        loop = asyncio.get_running_loop()
        pause = RESTART_SECONDS_MIN
        while not self._stopped.is_set():
            began = loop.time()
            try:
                child = await self._start(slot.name)
            except OSError as error:
                why = f"it could not be started: {error.strerror}"
            else:
                why = f"exit status {await self._run_child(slot, child)}"
            slot.settled.set()
            if self._stopped.is_set():
                return
            if loop.time() - began >= STABLE_SECONDS:
                pause = RESTART_SECONDS_MIN
            self._listener.child_ended(slot.name, why, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopped.wait()
            pause = min(RESTART_SECONDS_MAX, pause * 2)

    async def _run_child(self, slot: _Slot, child: ChildProcess) -> int:
        """Wait until one child has ended; return its exit status."""
        slot.child, slot.stop_requests = child, 0
        try:
            async with asyncio.timeout(None) as scope:
                slot.scope = scope
                self._forward(slot, self._stop_requests)
                said = await child.ready()
                if said:
                    slot.is_alive = True
                    slot.settled.set()
                    self._listener.child_started(slot.name, child.pid, said)
                return await child.wait()
        except TimeoutError:
            self._listener.child_overdue(slot.name, child.pid, killed=True)
            child.kill()
            return await child.wait()
        except asyncio.CancelledError:
            await _end_quickly(child)
            raise
        finally:
            slot.is_alive = False
            slot.child = slot.scope = None
            if slot.stop_timer is not None:
                slot.stop_timer.cancel()


async def _end_quickly(child: ChildProcess) -> None:
    """End a child because its parent was cancelled; it may still commit its finished lines."""
    child.request_stop()
    child.request_stop()
    try:
        async with asyncio.timeout(CANCELLED_SECONDS_MAX):
            await child.wait()
    except TimeoutError:
        child.kill()
        await child.wait()


class PipedChildProcess:
    """A process that gets stop requests on its standard input and prints its ready line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None, "started without pipes"
        assert process.stdout is not None, "started without pipes"
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    async def ready(self) -> str:
        """Return the first line that it prints; empty if it ended without one."""
        return (await self._stdout.readline()).decode(errors="replace").rstrip("\n")

    async def wait(self) -> int:
        """Return its exit status; negative for the signal that ended it."""
        # Its output is read and dropped, so that a full pipe never blocks it.
        while await self._stdout.read(_READ_BYTES):
            pass
        return await self._process.wait()

    def request_stop(self) -> None:
        """Write one stop request into its pipe; nothing happens if it has just ended."""
        # The event loop closes the pipe of a child that ended; writing to it then raises this.
        with suppress(RuntimeError):
            self._stdin.write(STOP_REQUEST)

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(ProcessLookupError):
            self._process.kill()


async def start_child(command: Sequence[str], first_line: str) -> PipedChildProcess:
    """Start a process and send it one line, which no other process can read.

    It runs in a session of its own, so that Ctrl-C on a terminal reaches only the parent, which
    forwards it. It shares our standard error.

    Raises:
        OSError: the system starts no process.
    """
    assert "\n" not in first_line, "only one line is sent"
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    child = PipedChildProcess(process)
    assert process.stdin is not None, "asked for above"
    process.stdin.write(first_line.encode() + b"\n")
    return child
