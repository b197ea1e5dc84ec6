"""Lines to endpoints and back, under three valves: open shards, one global limit, one per endpoint.

A fixed number of lanes carries one line each at a time. A lane takes its next line itself as
soon as it is free; a lane that finds none parks until it is woken. Nothing here touches the ledger.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Sequence

from tidegate.domain.errors import (
    CellDied,
    CellNotStarted,
    ReplyBroken,
    StorageBroken,
    TimedOut,
    UpstreamFault,
)
from tidegate.domain.retry import Blame
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.processor.endpoints import Endpoint
from tidegate.processor.held import Held
from tidegate.processor.observer import Observer
from tidegate.processor.open_shard import Flight, OpenShard, State
from tidegate.processor.outcome import Outcome, judge_fault, judge_reply
from tidegate.processor.quarantine import Death, Quarantine
from tidegate.processor.run import Entry, Run
from tidegate.processor.settings import Settings
from tidegate.upstreams.base import Call, Reply

REFUSALS_OF_AN_ODD_ONE = 3

# What became of a flight. None: nobody waits for it here any more.
Landing = Reply | UpstreamFault | Death | CellNotStarted | None


class Dispatcher:
    """Keeps lines in flight. `on_hungry` is told when a model's lines run low."""

    def __init__(
        self,
        held: Held,
        settings: Settings,
        *,
        chance: random.Random,
        observer: Observer,
        quarantine: Quarantine,
        on_hungry: Callable[[], None],
    ) -> None:
        self._held = held
        self._valves = settings.valves
        self._retry = settings.retry
        self._chance = chance
        self._observer = observer
        self._quarantine = quarantine
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
        if self._held.storage.is_full or self.in_flight >= self._valves.in_flight_max:
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
        if now >= run.ends_at:
            return None
        for _ in range(len(run.turn)):
            model = run.turn[0]
            run.turn.rotate(-1)
            shards = run.by_model[model]
            endpoint = shards[0].endpoint
            if endpoint is None or not endpoint.has_room(now) or not self._leaves_room(endpoint):
                continue
            found = (
                next_on_trial(shards, now) if endpoint.is_on_trial else next_in_order(shards, now)
            )
            if found is None:
                continue
            shard, index = found
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
        fresh = shard.fresh
        if fresh == endpoint.window or (not fresh and not run.fresh(shard.model)):
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
            if shard.endpoint is not None
            and shard.fresh
            and shard.state is State.RUNNING
            and not shard.is_quarantined
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
        landing: Landing = None
        try:
            landing = await self._carry(flight, call)
        finally:
            self._land(flight)
        self._settle(run, flight, landing)

    async def _carry(self, flight: Flight, call: Call) -> Landing:
        scope = flight.scope = asyncio.timeout(None)
        try:
            async with scope:
                return await self._send(flight, call)
        except TimeoutError as error:
            # Cut by us: nobody waits for this line here any more. Otherwise a stray of the door.
            return None if scope.expired() else self._stray(error)
        except UpstreamFault as fault:
            return fault
        except CellDied as death:
            # Not to be cut: the line stays in flight until the ledger knows of the death.
            flight.scope = None
            return await self._quarantine.bury(flight.shard, flight.index, death)
        except StorageBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of a call: a fault in a door must not stop every batch
            return self._stray(error)

    async def _send(self, flight: Flight, call: Call) -> Reply | CellNotStarted | None:
        if flight.shard.is_quarantined:
            return await self._quarantine.send(flight.shard, flight.index, call)
        return await flight.endpoint.upstream.send(call)

    def _stray(self, error: Exception) -> ReplyBroken:
        """Take an error that no upstream should raise for a broken reply, and say so."""
        self._observer.crashed(error)
        return ReplyBroken(f"The call failed in the gateway itself: {type(error).__name__}.")

    def _land(self, flight: Flight) -> None:
        self.in_flight -= 1
        flight.endpoint.limiter.finish()
        self._held.budget.bytes_held -= flight.reserved_bytes
        del flight.shard.flights[flight.index]

    def _settle(self, run: Run, flight: Flight, landing: Landing) -> None:
        shard = flight.shard
        if shard.state in {State.LOST, State.CLOSED}:
            self._observer.attempt(flight.endpoint.name, "dropped")
            self._observer.lines_repeated(1)
            return
        match landing:
            case None:
                self._observer.attempt(flight.endpoint.name, "cut")
                shard.put_back(flight.index)
            case CellNotStarted():
                self._rest(flight)
            case Death():
                self._observer.attempt(flight.endpoint.name, "died")
                self._mourn(run, flight, landing)
            case _:
                self._weigh(run, flight, landing)
        self.settle_shard(run, shard)

    def settle_shard(self, run: Run, shard: OpenShard) -> None:
        """Give an ending shard its end lines once nothing of it is in flight."""
        if shard.state is State.ENDING and not shard.flights and shard.undecided:
            run.add_ends(shard)
        run.changed.set()

    # Alone

    def _mourn(self, run: Run, flight: Flight, death: Death) -> None:
        """Blame a line that killed often enough; else let it wait until all others have gone."""
        shard, index = flight.shard, flight.index
        if death.count >= DEATHS_TO_BLAME:
            self._quarantine.blame(run, shard, index)
            return
        delay = self._retry.delay(max(1, death.count), self._chance.random())
        shard.sleep_until(index, asyncio.get_running_loop().time() + delay)

    def _rest(self, flight: Flight) -> None:
        """Leave a shard alone for a while whose child process could not be started."""
        shard = flight.shard
        shard.put_back(flight.index)
        shard.starts_failed += 1
        delay = self._retry.delay(shard.starts_failed, self._chance.random())
        shard.rests_until = asyncio.get_running_loop().time() + delay

    # Judging

    def _weigh(self, run: Run, flight: Flight, result: Reply | UpstreamFault) -> None:
        now = asyncio.get_running_loop().time()
        outcome = self._judge(run, flight, result, now)
        self._observer.attempt(flight.endpoint.name, outcome.blame.value)
        is_odd_one = self._is_odd_one(flight, outcome, result, now)
        if not (is_odd_one and outcome.overload):
            self._tell_endpoint(flight, result, outcome, now)
        if self._is_final(flight, outcome, is_odd_one=is_odd_one):
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

    def _judge(
        self, run: Run, flight: Flight, result: Reply | UpstreamFault, now: float
    ) -> Outcome:
        endpoint, line = flight.endpoint, flight.line
        request_id = run.request_id(line.number)
        if isinstance(result, Reply):
            starting = endpoint.is_starting(flight.shard.model, now)
            return judge_reply(result, request_id, line.custom_id, starting=starting)
        serves_others = endpoint.served_at > flight.sent_at
        return judge_fault(result, request_id, line.custom_id, serves_others=serves_others)

    def _is_odd_one(
        self, flight: Flight, outcome: Outcome, result: Reply | UpstreamFault, now: float
    ) -> bool:
        """Say whether the endpoint refuses this line again and again, while it serves others.

        Then the refusal says more of the line than of the endpoint: a content filter's 403, a
        proxy's 504 for one that takes too long, a quota that only this request would break.
        """
        if outcome.blame is not Blame.ENDPOINT or not isinstance(result, Reply):
            return False
        shard, index = flight.shard, flight.index
        before = shard.refused_at.get(index)
        shard.refused_at[index] = flight.sent_at
        since = flight.endpoint.on_refused((shard.claim.unit, index), now)
        if before is None:
            return False
        served_others = flight.endpoint.served_at > before
        # Once it stood out, it still does while nobody else is refused.
        still_odd = index in shard.refusals and since < before
        if not served_others and not still_odd:
            return False
        shard.refusals[index] = shard.refusals.get(index, 0) + 1
        return shard.refusals[index] >= REFUSALS_OF_AN_ODD_ONE

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

    def _is_final(self, flight: Flight, outcome: Outcome, *, is_odd_one: bool) -> bool:
        shard, index = flight.shard, flight.index
        match outcome.blame:
            case Blame.NOBODY:
                return True
            case Blame.ENDPOINT if is_odd_one and not outcome.overload:
                shard.unsure[index] = shard.unsure.get(index, 0) + 1
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
        failures = (
            shard.attempts.get(index, 0) + shard.unsure.get(index, 0) + shard.refusals.get(index, 0)
        )
        delay = self._retry.delay(max(1, failures), self._chance.random())
        if outcome.after is not None:
            delay = max(delay, min(outcome.after, self._retry.delay_seconds_max))
        shard.sleep_until(index, now + delay)


def next_in_order(shards: Sequence[OpenShard], now: float) -> tuple[OpenShard, int] | None:
    """Return the next line of the first shard that has one: neighbours share their prompts."""
    for shard in shards:
        index = shard.ready(now)
        if index is not None:
            return shard, index
    return None


def next_on_trial(shards: Sequence[OpenShard], now: float) -> tuple[OpenShard, int] | None:
    """Return the line to try out an endpoint with: one never sent, else the longest asleep.

    The line that the endpoint refused last may be the reason why it refused.
    """
    for shard in shards:
        index = shard.ready_unsent(now)
        if index is not None:
            return shard, index
    due = [(since, shard) for shard in shards if (since := shard.sleeper_due(now)) is not None]
    if not due:
        return None
    shard = min(due, key=lambda pair: pair[0])[1]
    index = shard.ready(now)
    assert index is not None
    return shard, index
