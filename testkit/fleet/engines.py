"""Engines that live in the time of an event loop: on a virtual one, an hour passes in seconds.

Nobody here looks at single tokens, so an engine is woken only when a request may have begun to
answer or ended, and takes all steps in between at once.
"""

import asyncio
import math
import random
from array import array
from collections.abc import Callable, Iterable, Sequence as Many
from dataclasses import dataclass, field

import msgspec
from typing_extensions import override

from tidegate.simulator.engine.cost import PICOSECONDS, Cost
from tidegate.simulator.engine.engine import Engine
from tidegate.simulator.engine.listener import Listener
from tidegate.simulator.engine.sequence import Request, Sequence
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.engine.tokens import text, tokenize
from tidegate.upstreams.base import Call, Reply, Upstream

OUTPUT_TOKENS = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What one request went through. Times are seconds."""

    key: str
    engine: str
    arrived: float
    scheduled: float
    first_token: float
    finished: float
    prompt_tokens: int
    output_tokens: int
    cached_tokens: int
    preemptions: int

    @property
    def queued(self) -> float:
        """Return how long it waited until its first step began."""
        return self.scheduled - self.arrived

    @property
    def ttft(self) -> float:
        """Return the time from arrival to the first token, the queue included."""
        return self.first_token - self.arrived


class LoopEngine(Listener):
    """An engine on the running loop. Cancelling `ask` aborts the request, as a client would.

    It sets timers only while somebody waits for an answer; else it lives when it is looked at.
    """

    def __init__(self, name: str, settings: EngineSettings, cost: Cost, *, seed: int = 0) -> None:
        self.name = name
        self.engine = Engine(settings, cost, self, seed=seed)
        self._served: list[Served] = []
        self._loop = asyncio.get_running_loop()
        self._started = self._loop.time()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_ps = 0
        # Until then nothing can have ended.
        self._quiet_until_ps: float = 0

    @property
    def load(self) -> int:
        """Return how many requests it has, running and waiting."""
        now = self._now_ps()
        if self._quiet_until_ps <= now:
            self._advance(now)
        return self.engine.unfinished

    @property
    def served(self) -> list[Served]:
        """Return what has been answered, in the order of its ends."""
        self.catch_up()
        return self._served

    async def ask(self, request: Request) -> Served:
        """Send a request; return when its last token is there."""
        sequence = self._take_in(request)
        ended: asyncio.Future[None] = self._loop.create_future()
        self._waiting[sequence.order] = ended
        # At the end of this turn of the loop: what comes together begins together.
        self._wake_at(self._now_ps())
        try:
            await ended
        except asyncio.CancelledError:
            self.catch_up()
            self.engine.abort(sequence)
            self._quiet_until_ps = 0
            self._set_alarm()
            raise
        finally:
            del self._waiting[sequence.order]
        return self.served_as(sequence, self.engine.now_ps)

    def send(self, request: Request) -> Sequence:
        """Send a request for which no task waits; `served` reports its end."""
        sequence = self._take_in(request)
        if self._waiting:
            self._wake_at(self._now_ps())
        return sequence

    def catch_up(self) -> None:
        """Bring the engine to the loop's time."""
        self._advance(self._now_ps())

    def _take_in(self, request: Request) -> Sequence:
        now = self._now_ps()
        self.engine.advance(now)
        self._quiet_until_ps = now
        return self.engine.add(request, max(now, self.engine.now_ps))

    def _advance(self, until_ps: int) -> None:
        self.engine.advance(until_ps)
        due = self.engine.quiet_until_ps
        self._quiet_until_ps = math.inf if due is None else due

    def served_as(self, sequence: Sequence, finished_ps: int) -> Served:
        """Return the story of a finished sequence."""
        assert sequence.scheduled_ps is not None
        assert sequence.first_token_ps is not None
        start = self._started
        return Served(
            key=sequence.request.key,
            engine=self.name,
            arrived=start + sequence.arrived_ps / PICOSECONDS,
            scheduled=start + sequence.scheduled_ps / PICOSECONDS,
            first_token=start + sequence.first_token_ps / PICOSECONDS,
            finished=start + finished_ps / PICOSECONDS,
            prompt_tokens=sequence.prompt_tokens,
            output_tokens=sequence.request.output_tokens,
            cached_tokens=sequence.cached_tokens or 0,
            preemptions=sequence.preemptions,
        )

    @override
    def finished(self, sequence: Sequence, at_ps: int) -> None:
        self._served.append(self.served_as(sequence, at_ps))
        ended = self._waiting.get(sequence.order)
        if ended is not None and not ended.done():
            ended.set_result(None)

    def _now_ps(self) -> int:
        return round((self._loop.time() - self._started) * PICOSECONDS)

    def _live(self) -> None:
        self._alarm = None
        # Seconds as a float may fall short of the very picosecond that the alarm was set for.
        self._advance(max(self._now_ps(), self._alarm_ps))
        if self._waiting:
            self._set_alarm()

    def _set_alarm(self) -> None:
        due = self.engine.quiet_until_ps
        if due is None:
            if self._alarm is not None:
                self._alarm.cancel()
                self._alarm = None
            return
        self._wake_at(due)

    def _wake_at(self, due_ps: int) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ps = due_ps
        when = self._started + due_ps / PICOSECONDS
        self._alarm = self._loop.call_at(when, self._live)


class EngineUpstream(Upstream):
    """A simulated engine as an upstream, for a processor or a router: JSON in, JSON out."""

    def __init__(self, engine: LoopEngine, *, output_tokens: int = OUTPUT_TOKENS) -> None:
        self._engine = engine
        self._output_tokens = output_tokens

    @override
    async def send(self, call: Call) -> Reply:
        asked = msgspec.json.decode(call.body, type=_Asked)
        prompt = tokenize(asked.text) or array("I", [0])
        room = self._engine.engine.settings.max_model_len - len(prompt)
        if room < 1:
            return Reply(status=400, headers={}, body=_TOO_LONG)
        wanted = asked.max_completion_tokens or asked.max_tokens or self._output_tokens
        request = Request(
            key=call.headers.get("x-request-id", asked.text),
            prompt=prompt,
            output_tokens=max(1, min(wanted, room)),
            priority=asked.priority,
        )
        served = await self._engine.ask(request)
        return Reply(status=200, headers={}, body=_answer(asked, served))

    @override
    async def aclose(self) -> None:
        return


@dataclass(slots=True)
class Fleet:
    """Engines behind one rule that picks one for each request: the least loaded by default."""

    engines: Many[LoopEngine]
    pick: Callable[[Many[LoopEngine]], LoopEngine] = field(
        default=lambda engines: min(engines, key=lambda engine: engine.load)
    )

    @property
    def served(self) -> list[Served]:
        """Return what all engines have answered, in the order of its ends."""
        found = [served for engine in self.engines for served in engine.served]
        return sorted(found, key=lambda served: (served.finished, served.key))

    async def run(self, times: Iterable[float], make: Callable[[int], Request]) -> None:
        """Let requests come at these times, in seconds from now; return when the last has come."""
        arrivals = _Arrivals(self, times, make)
        try:
            await arrivals.ended
        finally:
            arrivals.stop()

    async def clients(
        self, count: int, make: Callable[[int], Request], *, requests: int, think_seconds: float = 0
    ) -> None:
        """Let `clients` clients ask one request after the other, `requests` in all."""
        numbers = iter(range(requests))

        async def client() -> None:
            for number in numbers:
                await self.pick(self.engines).ask(make(number))
                await asyncio.sleep(think_seconds)

        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(client(), name=f"client {number}")

    async def drained(self) -> None:
        """Wait until every engine has answered everything."""
        while any(engine.load for engine in self.engines):
            await asyncio.sleep(1.0)
            for engine in self.engines:
                engine.catch_up()


class _Arrivals:
    """Requests that come one after the other, each with a timer of its own and no task."""

    def __init__(
        self, fleet: Fleet, times: Iterable[float], make: Callable[[int], Request]
    ) -> None:
        self._fleet = fleet
        self._make = make
        self._coming = enumerate(times)
        self._loop = asyncio.get_running_loop()
        self._start = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._go_on()

    def stop(self) -> None:
        """Let nothing come any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _go_on(self) -> None:
        for number, time in self._coming:
            if self._start + time > self._loop.time():
                self._timer = self._loop.call_at(self._start + time, self._come, number)
                return
            self._send(number)
        self.ended.set_result(None)

    def _come(self, number: int) -> None:
        try:
            self._send(number)
            self._go_on()
        except Exception as error:  # noqa: BLE001 - the edge: a timer has no caller to raise it to
            self.ended.set_exception(error)

    def _send(self, number: int) -> None:
        fleet = self._fleet
        fleet.pick(fleet.engines).send(self._make(number))


def shared_prompts(
    chance: random.Random, *, groups: int, shared_tokens: int, own_tokens: int, output_tokens: int
) -> Callable[[int], Request]:
    """Return a maker of requests that share the beginning of their prompts in groups."""
    prefixes = [_drawn(chance, shared_tokens) for _ in range(groups)]

    def make(number: int) -> Request:
        own = _drawn(chance, own_tokens)
        return Request(
            key=f"request-{number}",
            prompt=prefixes[chance.randrange(groups)] + own,
            output_tokens=max(1, round(chance.expovariate(1.0 / output_tokens))),
        )

    return make


def _drawn(chance: random.Random, tokens: int) -> "array[int]":
    drawn = array("I")
    drawn.frombytes(chance.randbytes(drawn.itemsize * tokens))
    return drawn


class _Message(msgspec.Struct):
    content: str = ""


class _Asked(msgspec.Struct):
    model: str
    messages: list[_Message] = []
    prompt: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    priority: int = 0

    @property
    def text(self) -> str:
        """Return all that is asked as one text."""
        return self.prompt or "\n".join(message.content for message in self.messages)


_TOO_LONG = (
    b'{"error":{"message":"The prompt is longer than the context of this model.",'
    b'"type":"BadRequestError","param":null,"code":400}}'
)


def _answer(asked: _Asked, served: Served) -> bytes:
    content = text(array("I", [len(asked.text) % 32_768] * min(served.output_tokens, 8)))
    usage = {
        "prompt_tokens": served.prompt_tokens,
        "completion_tokens": served.output_tokens,
        "total_tokens": served.prompt_tokens + served.output_tokens,
        "prompt_tokens_details": {"cached_tokens": served.cached_tokens},
    }
    return msgspec.json.encode(
        {
            "id": f"chatcmpl-{served.key}",
            "object": "chat.completion",
            "created": int(served.finished),
            "model": asked.model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content},
                    "finish_reason": "stop",
                }
            ],
            "usage": usage,
        }
    )
