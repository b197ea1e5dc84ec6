"""The one task that lives an engine's time: it advances it, and hands out what came of it."""

import asyncio
from collections.abc import Callable, Iterator

from typing_extensions import override

from tidegate.simulator.answers.generation import Choice
from tidegate.simulator.engine.cost import PICOSECONDS, Cost
from tidegate.simulator.engine.engine import Engine
from tidegate.simulator.engine.listener import Listener, Listeners
from tidegate.simulator.engine.sequence import Sequence
from tidegate.simulator.engine.settings import EngineSettings

# Timers of the event loop are rounded to milliseconds: what is due by half of one is due.
EARLY_PS = PICOSECONDS // 2_000
DELIVERIES_AT_ONCE = 256


class Driver(Listener):
    """Runs an engine by the clock of the event loop, and delivers tokens to choices.

    Attributes:
        engine: that it runs.
        queued_tokens: how many tokens of prompts wait for the first token of their answer.
        is_paused: whether new requests are held back.

    Args:
        size: how much the engine holds.
        cost: how long its steps take.
        seed: from which tokens are drawn.
        ears: who listens to the engine besides.
        clock: returns seconds; it must be the loop's own.
    """

    def __init__(
        self,
        size: EngineSettings,
        cost: Cost,
        *,
        seed: int,
        ears: tuple[Listener, ...],
        clock: Callable[[], float],
    ) -> None:
        self.engine = Engine(size, cost, Listeners((self, *ears)), seed=seed)
        self._clock = clock
        self._start = clock()
        self._choices: dict[int, Choice] = {}
        self._streams: dict[int, Choice] = {}
        self._finished: list[Choice] = []
        self._unstarted: dict[int, int] = {}
        self.queued_tokens = 0
        self._waker: asyncio.Future[None] | None = None
        self._planned_ps: int | None = None
        # When the first came of those that have come since the engine's task was woken.
        self._came_ps: int | None = None
        self._is_stopped = False
        self._drained: list[Callable[[], None]] = []
        self.is_paused = False

    @property
    def now_ps(self) -> int:
        """Return the engine's time by the clock."""
        return int((self._clock() - self._start) * PICOSECONDS)

    @property
    def unfinished(self) -> int:
        """Count the sequences that wait or run."""
        return len(self._choices)

    def sequences(self) -> Iterator[Sequence]:
        """Yield the sequences that wait or run."""
        for choice in self._choices.values():
            if choice.sequence is not None:
                yield choice.sequence

    def submit(self, choice: Choice) -> Sequence:
        """Take a choice in now. What comes in one turn of the loop comes together."""
        engine = self.engine
        now = self._came_ps
        if now is None:
            now = max(self.now_ps, engine.now_ps)
            following = engine.next_ps
            if following is not None and following <= now:
                engine.advance(now)
                now = max(now, engine.now_ps)
        sequence = engine.add(choice.request, now)
        self._choices[sequence.order] = choice
        self._unstarted[sequence.order] = sequence.prompt_tokens
        self.queued_tokens += sequence.prompt_tokens
        if self._came_ps is None:
            following = engine.next_ps
            if self._planned_ps is None or (following is not None and following < self._planned_ps):
                self._wake()
            if self._waker is not None and self._waker.done():
                self._came_ps = now
        return sequence

    def withdraw(self, choice: Choice) -> None:
        """End a choice at once, and free what it holds."""
        sequence = choice.sequence
        if sequence is None:
            return
        self._choices.pop(sequence.order, None)
        self._streams.pop(sequence.order, None)
        self.queued_tokens -= self._unstarted.pop(sequence.order, 0)
        if self.engine.abort(sequence):
            self._wake()

    def pause(
        self, *, aborts: bool = False, freezes: bool = False, then: Callable[[], None] | None = None
    ) -> None:
        """Hold new requests back, and end those that are here or let them stand still.

        Otherwise they go on to their end, and `then` is called when none runs any more.
        """
        engine = self.engine
        # What nobody reads along may be behind the clock.
        self._came_ps = None
        engine.advance(max(self.now_ps, engine.now_ps))
        if aborts:
            for choice in tuple(self._choices.values()):
                self._abort(choice)
        engine.hold(max(self.now_ps, engine.now_ps), freezes=freezes)
        self.is_paused = True
        if then is not None:
            self._drained.append(then)
        self._wake()

    def resume(self) -> None:
        """Go on with everything that was held back."""
        engine = self.engine
        self._drained.clear()
        self._came_ps = None
        engine.resume(max(self.now_ps, engine.now_ps))
        self.is_paused = False
        self._wake()

    def forget(self, *, preempts: bool = True) -> bool:
        """Forget the prefix cache; False, and nothing, while somebody holds blocks.

        With `preempts`, running sequences give up their blocks first, and are computed again.
        """
        if preempts:
            self.engine.preempt_all()
        self._wake()
        return self.engine.reset_cache()

    def _abort(self, choice: Choice) -> None:
        sequence = choice.sequence
        assert sequence is not None, "aborted before it was submitted"
        generated = sequence.generated(self.engine.step)
        self.withdraw(choice)
        try:
            choice.abort(generated)
        except Exception as error:  # noqa: BLE001 - the edge: a bug in one answer ends that one
            _give_up(choice, error)

    async def run(self) -> None:
        """Live until stopped."""
        while not self._is_stopped:
            self._came_ps = None
            self.engine.advance(self.now_ps + EARLY_PS)
            await self._deliver()
            while self._drained and not self.engine.running:
                self._drained.pop(0)()
            await self._rest()

    def stop(self) -> None:
        """End `run`."""
        self._is_stopped = True
        self._wake()

    @override
    def first_token(self, sequence: Sequence, at_ps: int) -> None:
        self.queued_tokens -= self._unstarted.pop(sequence.order, 0)
        choice = self._choices.get(sequence.order)
        if choice is not None and choice.is_streamed:
            self._streams[sequence.order] = choice

    @override
    def finished(self, sequence: Sequence, at_ps: int) -> None:
        choice = self._choices.pop(sequence.order, None)
        self._streams.pop(sequence.order, None)
        if choice is not None:
            self._finished.append(choice)

    async def _deliver(self) -> None:
        """Hand out what is there, in slices that leave room for others."""
        finished, self._finished = self._finished, []
        for number, choice in enumerate(finished, start=1):
            try:
                choice.ended()
            except Exception as error:  # noqa: BLE001 - the edge: a bug in one answer ends that one
                _give_up(choice, error)
            if not number % DELIVERIES_AT_ONCE:
                await asyncio.sleep(0)
        if not self._streams:
            return
        engine = self.engine
        for number, choice in enumerate(tuple(self._streams.values()), start=1):
            try:
                choice.deliver(engine.step)
            except Exception as error:  # noqa: BLE001 - as above
                _give_up(choice, error)
            if not number % DELIVERIES_AT_ONCE:
                await asyncio.sleep(0)

    async def _rest(self) -> None:
        """Wait until something is due, or something new has come."""
        if self._finished or self._is_stopped:
            return
        # What came while tokens were handed out may be due before. If nobody reads along, only
        # first tokens and ends matter.
        following = self.engine.next_ps if self._streams else self.engine.quiet_until_ps
        loop = asyncio.get_running_loop()
        timer = None
        if following is not None:
            delay = (following - EARLY_PS - self.now_ps) / PICOSECONDS
            if delay <= 0:
                await asyncio.sleep(0)
                return
            timer = loop.call_later(delay, self._wake)
        self._planned_ps = following
        waker = self._waker = loop.create_future()
        try:
            await waker
        finally:
            self._waker = None
            self._planned_ps = None
            if timer is not None:
                timer.cancel()

    def _wake(self) -> None:
        if self._waker is not None and not self._waker.done():
            self._waker.set_result(None)


def _give_up(choice: Choice, error: Exception) -> None:
    """Report what could not be written down, and break that one reply off."""
    context = {"message": "An answer could not be written down.", "exception": error}
    asyncio.get_running_loop().call_exception_handler(context)
    generation = choice.generation
    generation.call.cut()
    generation.gone()
