"""Lines to endpoints and back, under three valves: open shards, one global limit, one per endpoint.

Lines are started, and those that landed are taken in, a bounded number at each turn of the event
loop. A call that its upstream can begin at once costs no task of its own. Nothing here touches the
ledger.
"""

import asyncio
import random
from collections import deque

from tidegate.domain.errors import (
    ReplyBroken,
    SandboxDied,
    SandboxNotStarted,
    StorageBroken,
    UpstreamFault,
)
from tidegate.domain.retry import AttemptOutcome
from tidegate.endpoints.endpoint import Endpoint
from tidegate.processor.dispatch.attempt import Attempt, Landing
from tidegate.processor.dispatch.open_batch import OpenBatch
from tidegate.processor.dispatch.open_batches import OpenBatches
from tidegate.processor.dispatch.open_shard import (
    CLOSED,
    ENDING,
    LOST,
    RETURNING,
    RUNNING,
    OpenShard,
    next_line,
)
from tidegate.processor.dispatch.quarantine import Quarantine
from tidegate.processor.dispatch.settle import AttemptSettler
from tidegate.processor.observer import Observer
from tidegate.processor.settings import Settings
from tidegate.processor.wakeups import Wakeups
from tidegate.upstreams.base import Reply

STALE = AttemptOutcome.STALE.value
# Of either, so many at one turn of the event loop: whatever else waits for it is not held up for
# more than 5 ms.
STARTS_AT_ONCE = 100
LANDINGS_AT_ONCE = 100
# Of the bodies of both together; the one that passes it is still taken whole.
BYTES_AT_ONCE = 2 * 2**20
# Lines too large for the room that smaller ones leave wait so long: then nobody else gets any.
BYTES_WAIT_SECONDS = 5.0
# The next of them waits so many times as long as room took to come: others lose no more to it.
BYTES_WAITS = 4.0


class Dispatcher:
    """Keeps lines in flight, and reports when a model's lines run low."""

    def __init__(
        self,
        held: OpenBatches,
        settings: Settings,
        *,
        rng: random.Random,
        observer: Observer,
        quarantine: Quarantine,
        wakeups: Wakeups,
    ) -> None:
        self._held = held
        self._valves = settings.limits
        self._observer = observer
        self._quarantine = quarantine
        self._settler = AttemptSettler(settings.retry, rng, quarantine)
        self._wakeups = wakeups
        wakeups.call_on_room(self.pump)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broken: asyncio.Future[None] | None = None
        self._is_due = False
        self._bytes_left = 0
        self._flying: set[Attempt] = set()
        self._landings: deque[tuple[Attempt, Landing]] = deque()
        self._ended: dict[tuple[str, str], int] = {}
        self._waiting: list[Endpoint] | None = None
        self._crowded: tuple[OpenBatch, str] | None = None
        self._crowded_since = 0.0
        self._patience = BYTES_WAIT_SECONDS
        self._carriers: asyncio.TaskGroup | None = None

    @property
    def in_flight(self) -> int:
        """Count the lines under way."""
        return len(self._flying)

    def pump(self) -> None:
        """Look for lines to start: something may be ready."""
        if not self._is_due and self._loop is not None:
            self._is_due = True
            self._loop.call_soon(self._turn)

    async def run(self) -> None:
        """Carry lines until cancelled; then every call under way is abandoned.

        Raises:
            ExceptionGroup: something broke that can't be mended here, such as `StorageBroken`.
        """
        try:
            async with asyncio.TaskGroup() as carriers:
                self._carriers = carriers
                self._loop = asyncio.get_running_loop()
                self._broken = self._loop.create_future()
                self.pump()
                await self._broken
        finally:
            self._loop = None
            for flight in self._flying:
                flight.abandon()

    def _turn(self) -> None:
        """Do what is due. No task runs it: waking one up would cost as much as some lines."""
        self._is_due = False
        if self._loop is None or self._broken is None or self._broken.done():
            return
        try:
            now = self._loop.time()
            self._bytes_left = BYTES_AT_ONCE
            self._take_in(now)
            if self._start_some(now) or self._landings:
                self.pump()
        except BaseException as error:  # noqa: BLE001 - it ends `run`, which raises it
            self._broken.set_exception(error)

    # Taking

    def _start_some(self, now: float) -> bool:
        """Start what may be started now; say whether there may be more."""
        for _ in range(STARTS_AT_ONCE):
            if self._bytes_left <= 0:
                return True
            flight = self._take(now)
            if flight is None and self._waiting:
                # Those for whom room was kept may have sent their last line at this very turn.
                self._waiting = None
                flight = self._take(now)
            if flight is None:
                return False
            self._fly(flight)
        return True

    def _take(self, now: float) -> Attempt | None:
        if self._is_full:
            return None
        if self._crowded is not None and self._is_crowded(now):
            flight = self._take_crowded(now)
            if flight is not None or self._is_crowded(now):
                return flight
        turn = self._held.turn
        for _ in range(len(turn)):
            run = turn[0]
            if len(turn) > 1:
                turn.rotate(-1)
            flight = self._take_from(run, now)
            if flight is not None:
                return flight
        return None

    @property
    def _is_full(self) -> bool:
        """Say whether no line at all may start."""
        held = self._held
        if held.storage.is_full or held.budget.is_full_of_lines:
            return True
        return len(self._flying) >= self._valves.in_flight_max

    def _is_crowded(self, now: float) -> bool:
        """Say whether a line has waited for room for so long that it goes before all others."""
        return self._crowded is not None and now - self._crowded_since >= self._patience

    def _take_crowded(self, now: float) -> Attempt | None:
        assert self._crowded is not None, "nothing waits for room"
        (run, model), since = self._crowded, self._crowded_since
        self._crowded = None
        flight = self._take_of(run, model, now)
        if flight is not None:
            self._patience = max(BYTES_WAIT_SECONDS, BYTES_WAITS * (now - since - self._patience))
        # Where it is crowded still, it has been all along.
        self._crowded_since = since
        return flight

    def _take_from(self, run: OpenBatch, now: float) -> Attempt | None:
        turn = run.turn
        for _ in range(len(turn)):
            model = turn[0]
            if len(turn) > 1:
                turn.rotate(-1)
            flight = self._take_of(run, model, now)
            if flight is not None:
                return flight
        return None

    def _take_of(self, run: OpenBatch, model: str, now: float) -> Attempt | None:
        shards = run.by_model.get(model)
        endpoint = shards[0].endpoint if shards else None
        if not shards or endpoint is None or now >= run.ends_at:
            return None
        if not endpoint.has_room(now) or not self._leaves_room(endpoint):
            return None
        found = next_line(shards, now, on_trial=endpoint.is_on_trial)
        if found is None:
            return None
        shard, index = found
        size = len(shard.lines[index].body) + int(endpoint.reply_bytes_expected)
        if self._held.budget.takes(size):
            if self._crowded == (run, model):
                self._crowded = None
            return self._start(run, shard, index, endpoint, size, now)
        if self._crowded is None:
            self._crowded, self._crowded_since = (run, model), now
        return None

    def _start(
        self,
        run: OpenBatch,
        shard: OpenShard,
        index: int,
        endpoint: Endpoint,
        size: int,
        now: float,
    ) -> Attempt:
        shard.take(index)
        flight = Attempt(run, shard, index, endpoint, sent_at=now, reserved_bytes=size, tower=self)
        shard.flights[index] = flight
        run.in_flight += 1
        self._flying.add(flight)
        flight.in_flight_at_send = endpoint.on_start(now)
        self._held.budget.bytes_held += size
        self._bytes_left -= len(flight.line.body)
        fresh, window = shard.fresh, endpoint.window
        if (fresh == window or not fresh) and run.fresh(shard.model) <= window:
            self._wakeups.report_lines_low()
        return flight

    def _leaves_room(self, endpoint: Endpoint) -> bool:
        """Say whether the global limit still has room when each waiting endpoint keeps its share.

        Without this a slow model could hold every slot while a fast one waits.
        """
        in_flight_max = self._valves.in_flight_max
        free = in_flight_max - len(self._flying)
        if free * 2 > in_flight_max:
            return True
        if self._waiting is None:
            # Once for all that start at this turn, and once more before it is given up.
            self._waiting = self._waiting_endpoints()
        waiting = self._waiting
        if not waiting or waiting == [endpoint]:
            return True
        share = in_flight_max // len(waiting)
        reserved = sum(
            max(0, min(share, other.window) - other.limiter.in_flight)
            for other in waiting
            if other is not endpoint
        )
        return free > reserved or endpoint.limiter.in_flight < share

    def _waiting_endpoints(self) -> list[Endpoint]:
        """Return the endpoints for which there are lines that could be sent, each once."""
        waiting = {
            id(shard.endpoint): shard.endpoint
            for run in self._held.runs.values()
            for shard in run.shards.values()
            if shard.endpoint is not None
            and shard.fresh
            and shard.state is RUNNING
            and not shard.is_quarantined
        }
        return list(waiting.values())

    # Flying

    def _fly(self, flight: Attempt) -> None:
        if not flight.shard.is_quarantined:
            try:
                flight.sending = flight.endpoint.upstream.begin(flight.call, flight)
            except UpstreamFault as fault:
                flight.land(fault)
                return
            except Exception as error:  # noqa: BLE001 - the edge of a call: a fault in a door must not stop every batch
                flight.land(self._stray(error))
                return
            if flight.sending is not None:
                return
        self._carry_by_task(flight, afresh=False)

    def _carry_by_task(self, flight: Attempt, *, afresh: bool) -> None:
        assert self._carriers is not None, "the dispatcher is not running"
        flight.task = self._carriers.create_task(
            self._carry(flight, afresh=afresh), name=f"carrier of {flight.request_id}"
        )
        flight.task.add_done_callback(flight.on_done)

    async def _carry(self, flight: Attempt, *, afresh: bool) -> Landing:
        try:
            return await self._send(flight, afresh=afresh)
        except UpstreamFault as fault:
            return fault
        except SandboxDied as error:
            death = error
        except StorageBroken:
            raise
        except Exception as error:  # noqa: BLE001 - the edge of a call: a fault in a door must not stop every batch
            return self._stray(error)
        # Not to be cut: the line stays in flight until the ledger knows of the death.
        flight.is_fixed = True
        return await self._quarantine.record_sandbox_death(flight.shard, flight.index, death)

    async def _send(self, flight: Attempt, *, afresh: bool) -> Reply | SandboxNotStarted | None:
        if flight.shard.is_quarantined:
            return await self._send_alone(flight)
        upstream = flight.endpoint.upstream
        if afresh:
            return await upstream.send_on_new_connection(flight.call)
        return await upstream.send(flight.call)

    async def _send_alone(self, flight: Attempt) -> Reply | SandboxNotStarted | None:
        shard = flight.shard
        if not await self._quarantine.record(shard, flight.index):
            return None
        now = asyncio.get_running_loop().time()
        if shard.state is not RUNNING or now >= flight.run.ends_at:
            # The ledger took its time: until it answers, the line only waits to be sent.
            return None
        return await self._quarantine.send(shard, flight.call)

    def _stray(self, error: Exception) -> ReplyBroken:
        """Take an error that no upstream should raise for a broken reply, and say so."""
        self._observer.on_upstream_crash(error)
        return ReplyBroken(f"The call failed in the gateway itself: {type(error).__name__}.")

    def unanswered(self, flight: Attempt) -> None:
        """Send a call once more whose connection was closed just as it was written.

        Where nothing may be sent any more, it lands without a reply.
        """
        assert self._loop is not None, "the dispatcher is not running"
        assert self._broken is not None, "the dispatcher is not running"
        is_over = self._broken.done() or self._loop.time() >= flight.run.ends_at
        if is_over or flight.shard.state is not RUNNING:
            flight.land(None)
            return
        self._carry_by_task(flight, afresh=True)

    # Landing

    def landed(self, flight: Attempt, landing: Landing) -> None:
        """Remember a landing for the next turn."""
        self._landings.append((flight, landing))
        self.pump()

    def _take_in(self, now: float) -> None:
        """Settle what has landed, start a line in the place of each, and tell of it.

        One by one, so that a limit in use is seen to be in use, and may grow.
        """
        self._waiting = None
        landings = self._landings
        for _ in range(min(len(landings), LANDINGS_AT_ONCE)):
            if self._bytes_left <= 0:
                break
            flight, landing = landings.popleft()
            if isinstance(landing, Reply):
                self._bytes_left -= len(landing.body)
            outcome = self._settle(flight, landing, now)
            if outcome is not None:
                end = (flight.endpoint.name, outcome)
                self._ended[end] = self._ended.get(end, 0) + 1
            following = self._take(now)
            if following is not None:
                self._fly(following)
        for (endpoint, outcome), count in self._ended.items():
            self._observer.on_attempts(endpoint, outcome, count)
        self._ended.clear()

    def _settle(self, flight: Attempt, landing: Landing, now: float) -> str | None:
        """Give the line its result or another try; return the outcome of the attempt."""
        run, shard = flight.run, flight.shard
        self._flying.discard(flight)
        run.in_flight -= 1
        flight.endpoint.limiter.finish()
        self._held.budget.bytes_held -= flight.reserved_bytes
        del shard.flights[flight.index]
        if shard.state is LOST or shard.state is CLOSED:
            self._observer.on_lines_repeated(1)
            return STALE
        outcome = self._settler.settle(flight, landing, now)
        if shard.state is ENDING:
            self.settle_shard(run, shard)
        elif shard.state is RETURNING and shard.returns_at_once:
            self._wakeups.work_available.set()
            run.wake_committer_if_due()
        elif not run.in_flight:
            # Whoever took a result was told when it was added; else only the last one matters.
            run.wake_committer_if_due()
        return outcome

    def settle_shard(self, run: OpenBatch, shard: OpenShard) -> None:
        """Give an ending shard its end lines once nothing of it is in flight."""
        if shard.state is ENDING and not shard.flights and shard.undecided:
            run.add_ends(shard)
        run.wake_committer_if_due()
