"""Lines to endpoints and back, under three valves: open shards, one global limit, one per endpoint.

A fixed number of lanes carries one line each at a time. A lane takes its next line itself as
soon as it is free; a lane that finds none parks until it is woken. Nothing here touches the ledger.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable

from tidegate.domain.errors import TimedOut, UpstreamFault
from tidegate.domain.retry import Blame, Retry
from tidegate.processor.endpoints import Endpoint
from tidegate.processor.held import Held
from tidegate.processor.observer import Observer
from tidegate.processor.open_shard import Flight, OpenShard, State
from tidegate.processor.outcome import Outcome, judge_fault, judge_reply
from tidegate.processor.run import Entry, Run
from tidegate.processor.settings import Valves
from tidegate.upstreams.base import Call, Reply


class Dispatcher:
    """Keeps lines in flight. `on_hungry` is told when a model's lines run low."""

    def __init__(
        self,
        held: Held,
        *,
        valves: Valves,
        retry: Retry,
        chance: random.Random,
        observer: Observer,
        on_hungry: Callable[[], None],
    ) -> None:
        self._held = held
        self._valves = valves
        self._retry = retry
        self._chance = chance
        self._observer = observer
        self._on_hungry = on_hungry
        self._parked: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0

    def pump(self) -> None:
        """Wake a lane: something may be ready. The lane wakes the next one where there is more."""
        while self._parked:
            waiter = self._parked.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def lane(self) -> None:
        """Carry lines one after the other until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            taken = self._take(loop.time())
            if taken is None:
                waiter: asyncio.Future[None] = loop.create_future()
                self._parked.append(waiter)
                await waiter
                continue
            run, flight = taken
            if self._parked and flight.endpoint.limiter.has_room:
                self.pump()
            await self._fly(run, flight)

    # Taking

    def _take(self, now: float) -> tuple[Run, Flight] | None:
        if self.in_flight >= self._valves.in_flight_max:
            return None
        turn = self._held.turn
        for _ in range(len(turn)):
            run = turn[0]
            turn.rotate(-1)
            flight = self._take_from(run, now)
            if flight is not None:
                return run, flight
        return None

    def _take_from(self, run: Run, now: float) -> Flight | None:
        for _ in range(len(run.turn)):
            model = run.turn[0]
            run.turn.rotate(-1)
            for shard in run.by_model[model]:
                endpoint = shard.endpoint
                index = shard.ready(now)
                if endpoint is None or index is None:
                    continue
                if not endpoint.has_room(now) or not self._leaves_room(endpoint):
                    break
                size = len(shard.lines[index].body) + int(endpoint.reply_bytes_expected)
                if not self._held.budget.takes(size):
                    return None
                return self._start(run, shard, index, endpoint, size, now)
        return None

    def _start(
        self, run: Run, shard: OpenShard, index: int, endpoint: Endpoint, size: int, now: float
    ) -> Flight:
        line = shard.take(index)
        flight = Flight(shard, index, line, endpoint, now, size)
        shard.flights[index] = flight
        endpoint.on_start(now)
        self.in_flight += 1
        self._held.budget.bytes_held += size
        if shard.fresh == endpoint.window or run.fresh(shard.model) == 0:
            self._on_hungry()
        return flight

    def _leaves_room(self, endpoint: Endpoint) -> bool:
        """Say whether the global limit still has room when each waiting endpoint keeps its share.

        Without this a slow model could hold every slot while a fast one waits.
        """
        free = self._valves.in_flight_max - self.in_flight
        if free * 2 > self._valves.in_flight_max:
            return True
        waiting = {
            id(shard.endpoint): shard.endpoint
            for run in self._held.runs.values()
            for shard in run.shards.values()
            if shard.endpoint is not None and shard.fresh and shard.state is State.RUNNING
        }
        share = self._valves.in_flight_max // max(1, len(waiting))
        reserved = sum(
            max(0, min(share, other.window) - other.limiter.in_flight)
            for other in waiting.values()
            if other is not endpoint
        )
        return free > reserved or endpoint.limiter.in_flight < share

    # Flying

    async def _fly(self, run: Run, flight: Flight) -> None:
        request_id = run.request_id(flight.line.number)
        call = Call(
            path=run.batch.endpoint,
            body=flight.line.body,
            headers={"x-request-id": request_id, "idempotency-key": request_id},
        )
        result: Reply | UpstreamFault | None = None
        try:
            async with asyncio.timeout(None) as scope:
                flight.scope = scope
                result = await flight.endpoint.upstream.send(call)
        except TimeoutError:
            # The flight was cut: nobody waits for this line here any more.
            result = None
        except UpstreamFault as fault:
            result = fault
        finally:
            self._land(flight)
        self._settle(run, flight, result)

    def _land(self, flight: Flight) -> None:
        self.in_flight -= 1
        flight.endpoint.limiter.finish()
        self._held.budget.bytes_held -= flight.reserved_bytes
        del flight.shard.flights[flight.index]

    def _settle(self, run: Run, flight: Flight, result: Reply | UpstreamFault | None) -> None:
        shard = flight.shard
        if shard.state in {State.LOST, State.CLOSED}:
            self._observer.attempt(flight.endpoint.name, "dropped")
            self._observer.lines_repeated(1)
            return
        if result is None:
            self._observer.attempt(flight.endpoint.name, "cut")
            shard.put_back(flight.index)
        else:
            self._weigh(run, flight, result)
        self.settle_shard(run, shard)

    def settle_shard(self, run: Run, shard: OpenShard) -> None:
        """Give an ending shard its end lines once nothing of it is in flight."""
        if shard.state is State.ENDING and not shard.flights and shard.undecided:
            run.add_ends(shard)
        run.changed.set()

    # Judging

    def _weigh(self, run: Run, flight: Flight, result: Reply | UpstreamFault) -> None:
        now = asyncio.get_running_loop().time()
        endpoint, line = flight.endpoint, flight.line
        request_id = run.request_id(line.number)
        if isinstance(result, Reply):
            starting = endpoint.is_starting(flight.shard.model, now)
            outcome = judge_reply(result, request_id, line.custom_id, starting=starting)
        else:
            serves_others = endpoint.served_at > flight.sent_at
            outcome = judge_fault(result, request_id, line.custom_id, serves_others=serves_others)
        self._observer.attempt(endpoint.name, outcome.blame.value)
        self._tell_endpoint(flight, result, outcome, now)
        if self._is_final(flight, outcome):
            run.finished[flight.shard.model] = run.finished.get(flight.shard.model, 0) + 1
            run.add(
                Entry(
                    flight.shard,
                    flight.index,
                    outcome.line,
                    is_error=outcome.is_error,
                    tally=outcome.tally,
                )
            )
        else:
            self._try_again(flight, outcome, now)

    def _tell_endpoint(
        self, flight: Flight, result: Reply | UpstreamFault, outcome: Outcome, now: float
    ) -> None:
        endpoint = flight.endpoint
        match outcome.blame:
            case Blame.NOBODY if isinstance(result, Reply):
                endpoint.on_served(flight.shard.model, now, len(result.body))
            case Blame.NOBODY | Blame.LINE:
                endpoint.on_answered()
                if isinstance(result, TimedOut):
                    endpoint.limiter.on_overload(flight.sent_at, now)
            case Blame.ENDPOINT if outcome.overload:
                endpoint.on_overload(
                    reason=outcome.reason, sent_at=flight.sent_at, now=now, after=outcome.after
                )
            case Blame.ENDPOINT | Blame.UNSURE:
                endpoint.on_sick(
                    reason=outcome.reason, sent_at=flight.sent_at, now=now, after=outcome.after
                )

    def _is_final(self, flight: Flight, outcome: Outcome) -> bool:
        shard, index = flight.shard, flight.index
        match outcome.blame:
            case Blame.NOBODY:
                return True
            case Blame.ENDPOINT:
                return False
            case Blame.LINE:
                shard.attempts[index] = shard.attempts.get(index, 0) + 1
            case Blame.UNSURE:
                shard.unsure[index] = shard.unsure.get(index, 0) + 1
        return (
            shard.attempts.get(index, 0) >= self._retry.attempts_max
            or shard.unsure.get(index, 0) >= self._retry.unsure_max
        )

    def _try_again(self, flight: Flight, outcome: Outcome, now: float) -> None:
        shard, index = flight.shard, flight.index
        if outcome.blame is Blame.ENDPOINT and not outcome.overload:
            shard.put_back(index)
            return
        failures = shard.attempts.get(index, 0) + shard.unsure.get(index, 0)
        delay = self._retry.delay(max(1, failures), self._chance.random())
        if outcome.after is not None:
            delay = max(delay, min(outcome.after, self._retry.delay_seconds_max))
        shard.sleep_until(index, now + delay)
