"""A processor: it owns the tasks that work on claims, and stops in two steps."""

import asyncio
from contextlib import suppress

from tidegate.domain.claim import Claim
from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.processor.batches.deadlines import DeadlineWatcher
from tidegate.processor.batches.loops import BatchLoops
from tidegate.processor.batches.planner import Planner
from tidegate.processor.batches.waiting import WaitingReasons
from tidegate.processor.committer import Committers
from tidegate.processor.context import ProcessorContext
from tidegate.processor.dispatch.dispatcher import Dispatcher
from tidegate.processor.dispatch.open_batch import Budget, OpenBatches
from tidegate.processor.dispatch.quarantine import Quarantine
from tidegate.processor.leases.claimer import Claimer
from tidegate.processor.leases.ledger_clock import LedgerClock
from tidegate.processor.leases.membership import Membership
from tidegate.processor.leases.opener import ShardOpener
from tidegate.processor.leases.poller import LedgerPoller
from tidegate.processor.leases.returner import ShardReturner
from tidegate.processor.stop_deadline import StopDeadline
from tidegate.processor.wakeups import Wakeups
from tidegate.processor.write_gate import WriteGate
from tidegate.pubsub.base import WORK

PLANNERS = 2

# If at least this many times the global limit is ready to be sent, poll the ledger less often.
ENOUGH_WINDOWS = 4
ENOUGH_PAUSE_SECONDS = 0.05


class Processor:
    """Works on batches until it is stopped.

    `stop` takes no more work, waits up to the grace time for attempts in flight, commits, and hands
    claims back. `abort` does the same without grace. Both may be called before `run`, and twice.
    """

    def __init__(self, context: ProcessorContext) -> None:
        self._context = context
        self._settings = settings = context.settings
        self._wakeups = wakeups = Wakeups()
        self._stop = StopDeadline()
        self._gate = WriteGate(context.store, context.blobs, context.observer, wakeups, context.rng)
        ledger_clock = LedgerClock()
        limits = settings.limits
        self._open_batches = OpenBatches(
            Budget(limits.in_flight_bytes_max, limits.uncommitted_lines_max, wakeups),
            self._gate,
            context.observer,
        )
        self._renewer = context.make_renewer(
            member=None if context.ends_only else context.owner,
            on_lost=self._open_batches.lose,
            on_full=self._gate.refused,
        )
        self._quarantine = Quarantine(
            context.store,
            self._gate,
            context.observer,
            sandboxes_max=settings.sandbox.count_max,
            on_lost=self._lose,
        )
        self._dispatcher = Dispatcher(
            self._open_batches,
            settings,
            rng=context.rng,
            observer=context.observer,
            quarantine=self._quarantine,
            wakeups=wakeups,
        )
        self._committers = Committers(
            context, self._open_batches, self._renewer, self._gate, wakeups
        )
        self._reasons = WaitingReasons(context, self._open_batches)
        self._membership = Membership(context)
        self._poller = self._make_poller(ledger_clock)
        self._claimer = self._make_claimer(ledger_clock)
        self._returner = ShardReturner(context, self._open_batches, self._renewer, self._gate)
        self._batch_loops = BatchLoops(
            context,
            planner=Planner(context, self._gate),
            renewer=self._renewer,
            gate=self._gate,
            membership=self._membership,
            poller=self._poller,
            wakeups=wakeups,
            stop=self._stop,
        )

    def _make_poller(self, ledger_clock: LedgerClock) -> LedgerPoller:
        return LedgerPoller(
            self._context,
            open_batches=self._open_batches,
            membership=self._membership,
            deadlines=DeadlineWatcher(
                self._context, self._open_batches, self._dispatcher, ledger_clock
            ),
            ledger_clock=ledger_clock,
            wakeups=self._wakeups,
            stop=self._stop,
        )

    def _make_claimer(self, ledger_clock: LedgerClock) -> Claimer:
        opener = ShardOpener(
            self._context,
            open_batches=self._open_batches,
            committers=self._committers,
            dispatcher=self._dispatcher,
            quarantine=self._quarantine,
            renewer=self._renewer,
            ledger_clock=ledger_clock,
            stop=self._stop,
        )
        return Claimer(
            self._context,
            open_batches=self._open_batches,
            opener=opener,
            poller=self._poller,
            reasons=self._reasons,
            stop=self._stop,
        )

    # Running and stopping

    async def run(self) -> None:
        """Work until stopped; every claim is handed back or ended by then.

        Raises:
            ExceptionGroup: an error such as `StorageBroken` ended it; its claims expire.
        """
        self._renewer.mark_progress()
        self._wakeups.work_available.set()
        try:
            await self._run()
        finally:
            await self._quarantine.aclose()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as helpers:
            tasks = [helpers.create_task(self._renewer.run(), name="lease renewer")]
            if not self._context.ends_only:
                tasks.append(helpers.create_task(self._dispatcher.run(), name="dispatcher"))
            tasks.append(helpers.create_task(self._listen(), name="listener"))
            try:
                # Without ledger or disk, commits are retried indefinitely. End one lease after the
                # deadline all the same, and let the claims expire.
                async with self._stop.bounds(after=self._settings.claims.lease_seconds):
                    await self._work()
            except TimeoutError:
                self._context.observer.on_store_unavailable(
                    StoreUnavailable("Stopped with results uncommitted.")
                )
            for task in tasks:
                task.cancel()
        # After the lease renewer has ended, which would make us a member again.
        await self._membership.leave()

    async def _work(self) -> None:
        async with self._committers.tasks, asyncio.TaskGroup() as workers:
            workers.create_task(self._shard_loop(), name="shards")
            workers.create_task(self._batch_loops.finalizing(), name="finalizing")
            for number in range(PLANNERS):
                workers.create_task(self._batch_loops.planning(), name=f"planning {number}")

    @property
    def storage_reason(self) -> str | None:
        """Why no line is sent, while the storage is full; else None."""
        return self._gate.reason

    def stop(self) -> None:
        """Take no more work, and end `run` once every result is committed."""
        self._end_within(self._settings.drain.stop_grace_seconds)

    def abort(self) -> None:
        """Cancel the attempts in flight, commit the results, and end `run`."""
        self._end_within(0.0)

    def _end_within(self, grace_seconds: float) -> None:
        """Stop; a later call may only make the deadline earlier."""
        deadline = self._stop.set(grace_seconds)
        self._membership.give_up()
        self._returner.return_all(deadline)
        self._wakeups.report_stop()

    # Loops

    async def _listen(self) -> None:
        """Wake the shard loop on every signal, and at every poll interval without one."""
        with self._context.pubsub.listen((WORK, "batch/")) as listener:
            while True:
                await listener.wait(self._settings.claims.poll_seconds)
                self._wakeups.work_available.set()

    async def _shard_loop(self) -> None:
        while not (self._stop.is_set() and not self._open_batches.by_id):
            await self._wakeups.work_available.wait()
            self._wakeups.work_available.clear()
            self._renewer.mark_progress()
            try:
                await self._step()
            except StoreUnavailable as error:
                self._context.observer.on_store_unavailable(error)
            except StorageFull as error:
                self._gate.refused(error)
            await self._pause_if_enough()

    async def _pause_if_enough(self) -> None:
        """If enough lines are ready to be sent, delay the next poll until they run low.

        Each finished shard wakes this loop twice, which would load the ledger at full speed.
        """
        lines = sum(open_batch.all_fresh for open_batch in self._open_batches.by_id.values())
        if lines < ENOUGH_WINDOWS * self._settings.limits.in_flight_max or self._stop.is_set():
            return
        self._wakeups.lines_low.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(ENOUGH_PAUSE_SECONDS):
                await self._wakeups.lines_low.wait()

    async def _step(self) -> None:
        self._claimer.measure()
        await self._gate.probe()
        found = await self._poller.poll()
        self._returner.return_unserved()
        await self._returner.hand_back()
        await self._quarantine.tidy()
        if not (self._stop.is_set() or self._gate.pauses_claiming):
            await self._claimer.claim(found.offers)
        await self._reasons.note_open()
        self._dispatcher.pump()
        self._context.observer.on_load(
            in_flight=self._dispatcher.in_flight,
            open_shards=self._open_batches.open_shards,
            uncommitted=self._open_batches.budget.lines_held,
        )
        for endpoint in self._context.routes.endpoints():
            self._context.observer.on_endpoint_state(
                endpoint.name,
                limit=endpoint.limiter.limit,
                in_flight=endpoint.limiter.in_flight,
                reason=endpoint.reason,
            )

    def _lose(self, claim: Claim) -> None:
        self._renewer.remove(claim)
        self._open_batches.lose(claim)
