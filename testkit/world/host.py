"""One simulated process: alive until it crashes, with a clock of its own, and luck by `Odds`."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NoReturn, TypeVar

from testkit.world.broken import Broken
from testkit.world.odds import Odds
from testkit.world.timeline import Timeline
from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.testing.loop import LoopClock

T = TypeVar("T")
PAUSE_SECONDS = 37.0
CUT_SECONDS_MAX = 45.0
CALLS_A_SECOND_MAX = 5_000
_NO_ANSWER_SECONDS_MAX = 3.0


class Port(StrEnum):
    """What a process may be cut off from."""

    LEDGER = "ledger"  # The store; a call over a cut fails after a while.
    BLOBS = "blobs"  # The blob store; a call over a cut waits for its end.
    UPSTREAM = "upstream"  # The model servers; a call over a cut fails after a while.


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A port that can't be used until then; `one_way`: requests arrive, answers don't."""

    until: float
    one_way: bool


class Host:
    """A process and all that happens around its port calls.

    Attributes:
        tasks: what runs on it and ends with it; a crash cancels all of them.
        clock: its own idea of the time.
        is_disk_broken: a flush has failed, so that nothing it writes can be trusted any more.
        settled_at: its start, or the end of its last pause or cut, in loop time.
    """

    def __init__(
        self, name: str, rng: random.Random, odds: Odds, timeline: Timeline, ledger: LoopClock
    ) -> None:
        self.name = name
        self.alive = True
        self.rng = rng
        self.odds = odds
        self.timeline = timeline
        # A list keeps the order of cancels, which a replayed world needs.
        self.tasks: list[asyncio.Task[object]] = []
        loop = asyncio.get_running_loop()
        self.clock = LoopClock(loop)
        self.clock.skew_seconds = self._skew()
        self.is_disk_broken = False
        self._ledger = ledger
        self._loop = loop
        self.settled_at = loop.time()
        self._resumed_at = 0.0
        self._second = 0
        self._calls = 0
        self._cuts: dict[Port, Cut] = {}

    def calm(self) -> None:
        """Let nothing go wrong any more. Clocks stay as wrong as they are."""
        self.odds = self.odds.calm()
        self._cuts.clear()

    def note(self, what: str) -> None:
        """Put something into the timeline of the world."""
        self.timeline.note(self.name, what)

    async def call(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        """Call the ledger, with all that goes wrong around it."""
        await self.begin(Port.LEDGER, name)
        odds, rng = self.odds, self.rng
        cut = self.cut(Port.LEDGER)
        if cut is not None:
            await self._call_over(cut, name, ask)
        if rng.random() < odds.refused:
            self._refuse(name, StoreUnavailable(f"{name} was refused (simulated)."))
        if rng.random() < odds.full:
            self._refuse(name, StorageFull(f"No room for {name} (simulated)."))
        if rng.random() < odds.delivered_twice:
            self.note(f"{name} is delivered twice")
            await self.quietly(ask)
        answer = await self._answered(name, ask)
        await self.end(name)
        if rng.random() < odds.answer_lost:
            self._refuse(name, StoreUnavailable(f"The answer of {name} was lost (simulated)."))
        return answer

    async def begin(self, port: Port, name: str) -> None:
        """Be late, be cut off, or crash before a call."""
        odds, rng = self.odds, self.rng
        await self._wait()
        if rng.random() < odds.cut_off:
            until = self._loop.time() + rng.uniform(0.5, CUT_SECONDS_MAX)
            self._cuts[port] = Cut(until=until, one_way=rng.random() < 0.5)  # noqa: PLR2004 - a coin
            self.settled_at = max(self.settled_at, until)
            self.note(f"is cut off from {port}: {self._cuts[port]}")
        if rng.random() < odds.crash_before:
            await self.crash(f"before {name}")

    async def end(self, name: str) -> None:
        """Crash after a call, or be late with its answer."""
        if self.rng.random() < self.odds.crash_after:
            await self.crash(f"after {name}")
        await self._wait()

    def cut(self, port: Port) -> Cut | None:
        """Return what cuts this process off from a port now, if anything does."""
        cut = self._cuts.get(port)
        return cut if cut is not None and self._loop.time() < cut.until else None

    async def quietly(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Make a call whose answer is lost."""
        try:
            await ask()
        except Exception as error:
            if isinstance(error, AssertionError):
                raise

    async def crash(self, where: str) -> NoReturn:
        """End this process here and now."""
        if self.alive:
            self.note(f"CRASHES {where}")
            self.end_all()
        await self._vanish()

    def end_all(self) -> None:
        """End this process with everything that runs on it: its callers get no answer."""
        self.alive = False
        for task in list(self.tasks):
            task.cancel()

    async def _call_over(
        self, cut: Cut, name: str, ask: Callable[[], Awaitable[object]]
    ) -> NoReturn:
        if cut.one_way:
            await self.quietly(ask)
        left = cut.until - self._loop.time()
        await asyncio.sleep(min(self.rng.uniform(0.0, _NO_ANSWER_SECONDS_MAX), left))
        await self._wait()
        self._refuse(name, StoreUnavailable(f"{name} got no answer (simulated)."))

    def _refuse(self, name: str, error: Exception) -> NoReturn:
        self.note(f"{name} -> {error}")
        raise error

    async def _answered(self, name: str, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await ask()
        except Exception as error:
            self.note(f"{name} -> {type(error).__name__}")
            raise
        self.note(name)
        return answer

    async def _wait(self) -> None:
        odds, rng, loop = self.odds, self.rng, self._loop
        self._count()
        await self._go_on()
        if rng.random() < odds.paused:
            self._resumed_at = loop.time() + PAUSE_SECONDS
            self.settled_at = max(self.settled_at, self._resumed_at)
            self.note("stands still")
        if rng.random() < odds.clock_jump:
            clock = rng.choice([self.clock, self._ledger])
            clock.skew_seconds = self._skew()
            whose = "the ledger's" if clock is self._ledger else "its own"
            self.note(f"sets {whose} clock to {clock.skew_seconds:+.1f} s")
        delay = rng.uniform(0.0, odds.latency_seconds_max)
        while True:
            await asyncio.sleep(max(delay, self._resumed_at - loop.time()))
            await self._go_on()
            if loop.time() >= self._resumed_at:
                return
            delay = 0.0

    def _count(self) -> None:
        second = int(self._loop.time())
        self._calls = self._calls + 1 if second == self._second else 1
        self._second = second
        if self._calls > CALLS_A_SECOND_MAX:
            raise Broken(f"{self.name} runs in a tight loop: {self._calls} calls in a second")

    def _skew(self) -> float:
        most = self.odds.clock_skew_seconds_max
        return self.rng.uniform(-most, most)

    async def _go_on(self) -> None:
        if not self.alive:
            await self._vanish()

    async def _vanish(self) -> NoReturn:
        """Do nothing any more: a dead process only waits to be cancelled."""
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise asyncio.CancelledError
        never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        await never
        raise AssertionError("a dead process went on")
