"""An event loop whose time is virtual: a day of waiting passes in no time, and in one order.

Nothing in it may use threads or sockets: all waits are for a timer or for another
task. A program in which nothing can ever happen again is reported at once.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import ParamSpec, TypeVar

from typing_extensions import override

P = ParamSpec("P")
T = TypeVar("T")
START_UNIX_SECONDS = 1_800_000_000.0
TURNS_AT_ONCE_MAX = 100_000


class Deadlock(AssertionError):
    """Nothing is ready and nothing is scheduled: the program would wait indefinitely."""


class Livelock(AssertionError):
    """Tasks wake each other without end, and time stands still."""


class _VirtualSelector(selectors.SelectSelector):
    """Moves the clock at the point when a real selector would sleep."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.turns = 0
        self._turns = 0

    @override
    def select(  # type: ignore[explicit-any]  # the standard library's key carries Any
        self, timeout: float | None = None
    ) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Deadlock("Every task waits, and no timer is set.")
        self.turns += 1
        self._turns = 0 if timeout > 0.0 else self._turns + 1
        if self._turns > TURNS_AT_ONCE_MAX:
            raise Livelock(f"{self._turns} turns of the loop, and it is still {self.now}.")
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """The standard loop on virtual time, from second 0."""

    def __init__(self) -> None:
        self._virtual = _VirtualSelector()
        super().__init__(self._virtual)
        # Timers that are due within the clock's grain run together; with virtual time that grain
        # must be small against every delay of a simulation, and above zero to get past rounding.
        self._clock_resolution = 1e-9

    @property
    def turns(self) -> int:
        """Count the turns of the loop so far."""
        return self._virtual.turns

    @override
    def time(self) -> float:
        return self._virtual.now


class LoopClock:
    """A wall clock that follows a loop's time, with an offset that a fault may change.

    `passed_seconds` have passed beside the loop's, for everybody alike.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.skew_seconds = 0.0
        self.passed_seconds = 0.0

    def now(self) -> float:
        """Return Unix seconds."""
        return START_UNIX_SECONDS + self._loop.time() + self.passed_seconds + self.skew_seconds


def run_virtual(main: Coroutine[None, None, T]) -> T:
    """Run a coroutine to its end in virtual time, and close the loop."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)


def in_virtual_time(test: Callable[P, Coroutine[None, None, None]]) -> Callable[P, None]:
    """Make an ordinary function of an async test, which runs it on a loop of its own."""

    @wraps(test)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        run_virtual(test(*arguments, **named))

    return run
