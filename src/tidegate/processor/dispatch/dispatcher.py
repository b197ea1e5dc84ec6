"""Sends lines to endpoints under a global limit and one limit per endpoint.

At each turn of the event loop a bounded number of attempts is started, and of finished ones
settled. A call that its upstream can begin immediately needs no task. Only quarantine writes to the
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
from tidegate.processor.dispatch.attempt import Attempt, AttemptResult
from tidegate.processor.dispatch.open_batch import OpenBatch, OpenBatches
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
# Attempts at one turn of the event loop, so that other tasks wait for at most about 5 ms.
STARTS_PER_TURN = 100
SETTLED_PER_TURN = 100
# Bytes of their bodies, both together; the body that exceeds it is still handled.
BYTES_PER_TURN = 2 * 2**20
# After this time without enough room, a large line is sent before all smaller ones.
STARVED_SECONDS = 5.0
# The next such line waits this many times as long as room took to come.
STARVED_WAIT_FACTOR = 4.0


class Dispatcher:
    """Keeps lines in flight, and reports when the lines of a model run low."""

    def __init__(
        self,
        open_batches: OpenBatches,
        settings: Settings,
        *,
        rng: random.Random,
        observer: Observer,
        quarantine: Quarantine,
        wakeups: Wakeups,
    ) -> None:
        self._open_batches = open_batches
        self._limits = settings.limits
        self._observer = observer
        self._quarantine = quarantine
        self._settler = AttemptSettler(settings.retry, rng, quarantine)
        self._wakeups = wakeups
        wakeups.call_on_room(self.pump)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._broken: asyncio.Future[None] | None = None
        self._is_due = False
        self._bytes_left = 0
        self._in_flight: set[Attempt] = set()
        self._finished: deque[tuple[Attempt, AttemptResult]] = deque()
        self._outcomes: dict[tuple[str, str], int] = {}
        self._waiting: list[Endpoint] | None = None
        self._starved: tuple[OpenBatch, str] | None = None
        self._starved_since = 0.0
        self._starved_wait = STARVED_SECONDS
        self._tasks: asyncio.TaskGroup | None = None

    @property
    def in_flight(self) -> int:
        """How many attempts are in flight."""
        return len(self._in_flight)

    def pump(self) -> None:
        """Schedule a turn: a line may be ready to start."""
        if not self._is_due and self._loop is not None:
            self._is_due = True
            self._loop.call_soon(self._turn)

    async def run(self) -> None:
        """Send lines until cancelled; then abandon every call in flight.

        Raises:
            ExceptionGroup: an error ended it, such as `StorageBroken`.
        """
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._loop = asyncio.get_running_loop()
                self._broken = self._loop.create_future()
                self.pump()
                await self._broken
        finally:
            self._loop = None
            for attempt in self._in_flight:
                attempt.abandon()

    def _turn(self) -> None:
        """Settle and start attempts. A callback, not a task, because waking a task costs more."""
        self._is_due = False
        if self._loop is None or self._broken is None or self._broken.done():
            return
        try:
            now = self._loop.time()
            self._bytes_left = BYTES_PER_TURN
            self._settle_finished(now)
            if self._start_some(now) or self._finished:
                self.pump()
        except BaseException as error:  # noqa: BLE001 - it ends `run`, which raises it
            self._broken.set_exception(error)

    # Choosing lines

    def _start_some(self, now: float) -> bool:
        """Start what may be started now; return whether there may be more."""
        for _ in range(STARTS_PER_TURN):
            if self._bytes_left <= 0:
                return True
            attempt = self._next_attempt(now)
            if attempt is None and self._waiting:
                # Endpoints for which slots were kept may have sent their last line at this turn.
                self._waiting = None
                attempt = self._next_attempt(now)
            if attempt is None:
                return False
            self._dispatch(attempt)
        return True

    def _next_attempt(self, now: float) -> Attempt | None:
        if self._is_full:
            return None
        if self._starved is not None and self._is_starving(now):
            attempt = self._next_starved(now)
            if attempt is not None or self._is_starving(now):
                return attempt
        turn = self._open_batches.turn
        for _ in range(len(turn)):
            open_batch = turn[0]
            if len(turn) > 1:
                turn.rotate(-1)
            attempt = self._next_of_batch(open_batch, now)
            if attempt is not None:
                return attempt
        return None

    @property
    def _is_full(self) -> bool:
        """Whether no line at all may start."""
        open_batches = self._open_batches
        if open_batches.gate.is_full or open_batches.budget.is_full_of_lines:
            return True
        return len(self._in_flight) >= self._limits.in_flight_max

    def _is_starving(self, now: float) -> bool:
        """Return whether a line has waited too long for room, and is sent before all others."""
        return self._starved is not None and now - self._starved_since >= self._starved_wait

    def _next_starved(self, now: float) -> Attempt | None:
        assert self._starved is not None, "nothing waits for room"
        (open_batch, model), since = self._starved, self._starved_since
        self._starved = None
        attempt = self._next_of_model(open_batch, model, now)
        if attempt is not None:
            self._starved_wait = max(
                STARVED_SECONDS, STARVED_WAIT_FACTOR * (now - since - self._starved_wait)
            )
        # If it could not start, it has been waiting since then.
        self._starved_since = since
        return attempt

    def _next_of_batch(self, open_batch: OpenBatch, now: float) -> Attempt | None:
        turn = open_batch.turn
        for _ in range(len(turn)):
            model = turn[0]
            if len(turn) > 1:
                turn.rotate(-1)
            attempt = self._next_of_model(open_batch, model, now)
            if attempt is not None:
                return attempt
        return None

    def _next_of_model(self, open_batch: OpenBatch, model: str, now: float) -> Attempt | None:
        shards = open_batch.by_model.get(model)
        endpoint = shards[0].endpoint if shards else None
        if not shards or endpoint is None or now >= open_batch.ends_at:
            return None
        if not endpoint.has_room(now) or not self._leaves_room(endpoint):
            return None
        found = next_line(shards, now, on_trial=endpoint.is_on_trial)
        if found is None:
            return None
        shard, index = found
        size = len(shard.lines[index].body) + int(endpoint.reply_bytes_expected)
        if self._open_batches.budget.has_room_for(size):
            if self._starved == (open_batch, model):
                self._starved = None
            return self._start(open_batch, shard, index, endpoint, size, now)
        if self._starved is None:
            self._starved, self._starved_since = (open_batch, model), now
        return None

    def _start(
        self,
        open_batch: OpenBatch,
        shard: OpenShard,
        index: int,
        endpoint: Endpoint,
        size: int,
        now: float,
    ) -> Attempt:
        shard.take(index)
        attempt = Attempt(
            open_batch, shard, index, endpoint, sent_at=now, reserved_bytes=size, listener=self
        )
        shard.in_flight[index] = attempt
        open_batch.in_flight += 1
        self._in_flight.add(attempt)
        attempt.in_flight_at_send = endpoint.on_start(now)
        self._open_batches.budget.bytes_held += size
        self._bytes_left -= len(attempt.line.body)
        fresh, window = shard.fresh, endpoint.window
        if (fresh == window or not fresh) and open_batch.fresh(shard.model) <= window:
            self._wakeups.report_lines_low()
        return attempt

    def _leaves_room(self, endpoint: Endpoint) -> bool:
        """Return whether the global limit has room left when each waiting endpoint keeps its share.

        Without this a slow model could hold every slot while a fast one waits.
        """
        in_flight_max = self._limits.in_flight_max
        free = in_flight_max - len(self._in_flight)
        if free * 2 > in_flight_max:
            return True
        if self._waiting is None:
            # Computed once for all attempts of this turn, and again before the turn gives up.
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
        """Return the endpoints that have lines ready to be sent, each once."""
        waiting = {
            id(shard.endpoint): shard.endpoint
            for open_batch in self._open_batches.by_id.values()
            for shard in open_batch.shards.values()
            if shard.endpoint is not None
            and shard.fresh
            and shard.state is RUNNING
            and not shard.is_quarantined
        }
        return list(waiting.values())

    # Sending

    def _dispatch(self, attempt: Attempt) -> None:
        if not attempt.shard.is_quarantined:
            try:
                attempt.pending = attempt.endpoint.upstream.begin(attempt.call, attempt)
            except UpstreamFault as fault:
                attempt.finish(fault)
                return
            except Exception as error:  # noqa: BLE001 - a bug in one upstream must not stop every batch
                attempt.finish(self._unexpected_error(error))
                return
            if attempt.pending is not None:
                return
        self._send_in_task(attempt, on_new_connection=False)

    def _send_in_task(self, attempt: Attempt, *, on_new_connection: bool) -> None:
        assert self._tasks is not None, "the dispatcher is not running"
        attempt.task = self._tasks.create_task(
            self._send_and_catch(attempt, on_new_connection=on_new_connection),
            name=f"attempt {attempt.request_id}",
        )
        attempt.task.add_done_callback(attempt.on_done)

    async def _send_and_catch(self, attempt: Attempt, *, on_new_connection: bool) -> AttemptResult:
        try:
            return await self._send(attempt, on_new_connection=on_new_connection)
        except UpstreamFault as fault:
            return fault
        except SandboxDied as error:
            death = error
        except StorageBroken:
            raise
        except Exception as error:  # noqa: BLE001 - a bug in one upstream must not stop every batch
            return self._unexpected_error(error)
        # The line must stay in flight until the ledger has recorded the death.
        attempt.must_finish = True
        return await self._quarantine.record_sandbox_death(attempt.shard, attempt.index, death)

    async def _send(
        self, attempt: Attempt, *, on_new_connection: bool
    ) -> Reply | SandboxNotStarted | None:
        if attempt.shard.is_quarantined:
            return await self._send_in_sandbox(attempt)
        upstream = attempt.endpoint.upstream
        if on_new_connection:
            return await upstream.send_on_new_connection(attempt.call)
        return await upstream.send(attempt.call)

    async def _send_in_sandbox(self, attempt: Attempt) -> Reply | SandboxNotStarted | None:
        shard = attempt.shard
        if not await self._quarantine.record(shard, attempt.index):
            return None
        now = asyncio.get_running_loop().time()
        if shard.state is not RUNNING or now >= attempt.open_batch.ends_at:
            # The shard may have ended while the ledger answered; nothing was sent.
            return None
        return await self._quarantine.send(shard, attempt.call)

    def _unexpected_error(self, error: Exception) -> ReplyBroken:
        """Report an error that no upstream should raise, and treat it as a broken reply."""
        self._observer.on_upstream_crash(error)
        return ReplyBroken(f"The call failed in the gateway itself: {type(error).__name__}.")

    def on_stale_connection(self, attempt: Attempt) -> None:
        """Send a call again whose connection was closed just as it was written.

        If nothing may be sent any more, the attempt ends as cancelled.
        """
        assert self._loop is not None, "the dispatcher is not running"
        assert self._broken is not None, "the dispatcher is not running"
        is_over = self._broken.done() or self._loop.time() >= attempt.open_batch.ends_at
        if is_over or attempt.shard.state is not RUNNING:
            attempt.finish(None)
            return
        self._send_in_task(attempt, on_new_connection=True)

    # Settling

    def on_finished(self, attempt: Attempt, result: AttemptResult) -> None:
        """Settle this attempt at the next turn."""
        self._finished.append((attempt, result))
        self.pump()

    def _settle_finished(self, now: float) -> None:
        """Settle finished attempts, start a line in the place of each, and report the outcomes.

        One by one, so that the limiter sees its limit in use, and may raise it.
        """
        self._waiting = None
        finished = self._finished
        for _ in range(min(len(finished), SETTLED_PER_TURN)):
            if self._bytes_left <= 0:
                break
            attempt, result = finished.popleft()
            if isinstance(result, Reply):
                self._bytes_left -= len(result.body)
            outcome = self._settle(attempt, result, now)
            if outcome is not None:
                end = (attempt.endpoint.name, outcome)
                self._outcomes[end] = self._outcomes.get(end, 0) + 1
            following = self._next_attempt(now)
            if following is not None:
                self._dispatch(following)
        for (endpoint, outcome), count in self._outcomes.items():
            self._observer.on_attempts(endpoint, outcome, count)
        self._outcomes.clear()

    def _settle(self, attempt: Attempt, result: AttemptResult, now: float) -> str | None:
        """Give the line its result or another try; return the outcome of the attempt."""
        open_batch, shard = attempt.open_batch, attempt.shard
        self._in_flight.discard(attempt)
        open_batch.in_flight -= 1
        attempt.endpoint.limiter.finish()
        self._open_batches.budget.bytes_held -= attempt.reserved_bytes
        del shard.in_flight[attempt.index]
        if shard.state is LOST or shard.state is CLOSED:
            self._observer.on_lines_repeated(1)
            return STALE
        outcome = self._settler.settle(attempt, result, now)
        if shard.state is ENDING:
            self.settle_shard(open_batch, shard)
        elif shard.state is RETURNING and shard.returns_at_once:
            self._wakeups.work_available.set()
            open_batch.wake_committer_if_due()
        elif not open_batch.in_flight:
            # A result that was added has woken the committer; else only the last attempt matters.
            open_batch.wake_committer_if_due()
        return outcome

    def settle_shard(self, open_batch: OpenBatch, shard: OpenShard) -> None:
        """Give an ending shard its end lines once nothing of it is in flight."""
        if shard.state is ENDING and not shard.in_flight and shard.undecided:
            open_batch.add_end_lines(shard)
        open_batch.wake_committer_if_due()
