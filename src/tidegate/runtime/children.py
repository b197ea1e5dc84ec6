"""Child processes that are kept alive, and end with their parent however that ends."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

from tidegate.runtime.orders import ORDER
from tidegate.runtime.words import Lines

RESTART_SECONDS_MIN = 0.5
RESTART_SECONDS_MAX = 30.0
STEADY_SECONDS = 60.0
START_SECONDS_MAX = 30.0
CANCELLED_SECONDS_MAX = 5.0
_READ_BYTES = 4_096


class Child(Protocol):
    """One process that was started."""

    @property
    def pid(self) -> int:
        """Return the number by which the system knows it."""
        ...

    async def ready(self) -> str:
        """Return the line that it prints once it works; empty when it ended without one."""
        ...

    async def wait(self, hear: Callable[[bytes], None]) -> int:
        """Return its exit status once it has ended. Called after `ready`.

        `hear` gets each line that it prints until then, without its end.
        """
        ...

    def order(self) -> None:
        """Ask it to end: the first time in good order, the second time at once."""
        ...

    def kill(self) -> None:
        """End it without asking."""
        ...


class Watcher(Protocol):
    """Hears what becomes of the children. Every method returns at once and never raises."""

    def child_started(self, name: str, pid: int, said: str) -> None:
        """A child works; `said` is its ready line."""
        ...

    def child_said(self, name: str, line: bytes) -> None:
        """A child printed a line after its ready line."""
        ...

    def child_ended(self, name: str, why: str, restart_seconds: float) -> None:
        """A child ended although nobody had asked; the next one comes after so long."""
        ...

    def child_overdue(self, name: str, pid: int, *, killed: bool) -> None:
        """A child that was asked did not end in time: it is told to end at once, or killed."""
        ...


class _Place:
    """Where one child after the other lives."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.settled = asyncio.Event()
        self.is_alive = False
        self.child: Child | None = None
        self.scope: asyncio.Timeout | None = None
        self.patience: asyncio.TimerHandle | None = None
        self.orders = 0


class Children:
    """A service that keeps one child for each name, until it is stopped.

    A child that ends unasked is started again, after a pause that doubles from
    `RESTART_SECONDS_MIN` to `RESTART_SECONDS_MAX`; one that lived for `STEADY_SECONDS` has the
    shortest pause before it. After `stop` a child has `stop_seconds` to end, then it is aborted by
    itself; after `abort` it has `abort_seconds`, then it is killed.
    """

    def __init__(
        self,
        names: Sequence[str],
        start: Callable[[str], Awaitable[Child]],
        watcher: Watcher,
        *,
        stop_seconds: float,
        abort_seconds: float,
    ) -> None:
        self._places = [_Place(name) for name in names]
        self._start = start
        self._watcher = watcher
        self._stop_seconds = stop_seconds
        self._abort_seconds = abort_seconds
        self._orders = 0
        self._stopped = asyncio.Event()

    @property
    def count(self) -> int:
        """Return how many children there should be."""
        return len(self._places)

    @property
    def alive(self) -> int:
        """Return how many have said that they work, and have not ended since."""
        return sum(place.is_alive for place in self._places)

    async def wait_until_settled(self) -> None:
        """Return once each child works or has failed for the first time, within a bound."""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS_MAX):
                for place in self._places:
                    await place.settled.wait()

    async def run(self) -> None:
        """Keep the children until stopped; none is left when this returns."""
        async with asyncio.TaskGroup() as group:
            for place in self._places:
                group.create_task(self._keep(place), name=place.name)

    def stop(self) -> None:
        """Ask every child to end in good order, and start none any more."""
        self._order(1)

    def abort(self) -> None:
        """Ask every child to end at once."""
        self._order(2)

    def _order(self, orders: int) -> None:
        self._orders = max(self._orders, orders)
        self._stopped.set()
        for place in self._places:
            self._pass_on(place, self._orders)

    def _pass_on(self, place: _Place, orders: int) -> None:
        """Send a child so many orders, less those that it has got."""
        if place.child is None or place.scope is None or place.orders >= orders:
            return
        for _ in range(orders - place.orders):
            place.child.order()
        place.orders = orders
        loop = asyncio.get_running_loop()
        if orders > 1:
            place.scope.reschedule(loop.time() + self._abort_seconds)
        else:
            place.patience = loop.call_later(self._stop_seconds, self._lose_patience, place)

    def _lose_patience(self, place: _Place) -> None:
        """Abort one child that was stopped and still lives."""
        if place.child is not None and place.orders == 1:
            self._watcher.child_overdue(place.name, place.child.pid, killed=False)
            self._pass_on(place, 2)

    async def _keep(self, place: _Place) -> None:
        loop = asyncio.get_running_loop()
        pause = RESTART_SECONDS_MIN
        while not self._stopped.is_set():
            began = loop.time()
            try:
                child = await self._start(place.name)
            except OSError as error:
                why = f"it could not be started: {error.strerror}"
            else:
                why = f"exit status {await self._live(place, child)}"
            place.settled.set()
            if self._stopped.is_set():
                return
            if loop.time() - began >= STEADY_SECONDS:
                pause = RESTART_SECONDS_MIN
            self._watcher.child_ended(place.name, why, pause)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopped.wait()
            pause = min(RESTART_SECONDS_MAX, pause * 2)

    async def _live(self, place: _Place, child: Child) -> int:
        """See one child through its life; return its exit status."""
        place.child, place.orders = child, 0
        try:
            async with asyncio.timeout(None) as scope:
                place.scope = scope
                self._pass_on(place, self._orders)
                said = await child.ready()
                if said:
                    place.is_alive = True
                    place.settled.set()
                    self._watcher.child_started(place.name, child.pid, said)
                return await child.wait(partial(self._watcher.child_said, place.name))
        except TimeoutError:
            self._watcher.child_overdue(place.name, child.pid, killed=True)
            child.kill()
            return await child.wait(_unheard)
        except asyncio.CancelledError:
            await _end_quickly(child)
            raise
        finally:
            place.is_alive = False
            place.child = place.scope = None
            if place.patience is not None:
                place.patience.cancel()


def _unheard(line: bytes) -> None:
    """Hear a line of a child that is being ended."""


async def _end_quickly(child: Child) -> None:
    """End a child when its parent can't go on: it may commit what it has, and is gone soon."""
    child.order()
    child.order()
    try:
        async with asyncio.timeout(CANCELLED_SECONDS_MAX):
            await child.wait(_unheard)
    except TimeoutError:
        child.kill()
        await child.wait(_unheard)


class PipedChild:
    """A process of the system that is told by its standard input and heard on its output."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None, "started without pipes"
        assert process.stdout is not None, "started without pipes"
        self._process = process
        self._orders = process.stdin
        self._words = process.stdout

    @property
    def pid(self) -> int:
        """Return the number by which the system knows it."""
        return self._process.pid

    async def ready(self) -> str:
        """Return the first line that it prints; empty when it ended without one."""
        return (await self._words.readline()).decode(errors="replace").rstrip("\n")

    async def wait(self, hear: Callable[[bytes], None]) -> int:
        """Return its exit status; negative for the signal that ended it."""
        lines = Lines()
        while data := await self._words.read(_READ_BYTES):
            for line in lines.feed(data):
                hear(line)
        return await self._process.wait()

    def order(self) -> None:
        """Write one order into its pipe; one that has just ended hears it no more."""
        # The event loop closes the pipe of a child that ended, and raises this from then on.
        with suppress(RuntimeError):
            self._orders.write(ORDER)

    def kill(self) -> None:
        """Send SIGKILL."""
        with suppress(ProcessLookupError):
            self._process.kill()


async def start_piped(command: Sequence[str], handed: str) -> PipedChild:
    """Start a process, and send it one line that is nobody else's to read.

    It gets a session of its own: Ctrl-C on a terminal then reaches the parent alone, which passes
    it on. Its standard error is ours.

    Raises:
        OSError: the system starts no process.
    """
    assert "\n" not in handed, "one line is handed over"
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    child = PipedChild(process)
    assert process.stdin is not None, "asked for above"
    process.stdin.write(handed.encode() + b"\n")
    return child
