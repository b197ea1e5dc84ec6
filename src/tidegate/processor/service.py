"""A processor: owns every task between a claim and its end, and stops in two steps."""

import asyncio
import random
from contextlib import suppress
from dataclasses import dataclass

from tidegate.blobs.base import BlobStore
from tidegate.domain.claim import Claim
from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.processor.census import Census
from tidegate.processor.claimer import Claimer, ClaimerTools
from tidegate.processor.closer import Closer, CloserTools
from tidegate.processor.committer import Committer, CommitterTools
from tidegate.processor.cut import Cut
from tidegate.processor.dispatcher import Dispatcher
from tidegate.processor.endpoints import Routes
from tidegate.processor.held import Held
from tidegate.processor.keeper import Keeper
from tidegate.processor.ledger_time import LedgerTime
from tidegate.processor.observer import Observer
from tidegate.processor.open_shard import OpenShard
from tidegate.processor.plan_door import PlanCell, PlanDoor, PlanTask
from tidegate.processor.planner import Models, OpenPlanCell, Planner, PlannerTools
from tidegate.processor.quarantine import Quarantine
from tidegate.processor.run import Budget, Run
from tidegate.processor.scratch import ScratchMaker
from tidegate.processor.settings import Settings
from tidegate.processor.storage import Storage
from tidegate.processor.whole_batch import WholeBatch, WholeBatchTools
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.sandbox.base import Cell
from tidegate.signals.base import WORK, Signals
from tidegate.stores.base import Store

PLANNERS = 2

# With so many times the global limit ready to be sent, looks at what is on offer keep a distance.
FED_WINDOWS = 4
FED_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the wiring gives to a processor. `owner` is fresh for each process start.

    Without `open_plan_cell` every batch is planned in this very process, whatever it may do to it.
    One that is there for ends only claims what is cancelled or past its window, and the closing of
    books. It sends nothing, so it needs no routes, and does not count among the living.
    """

    store: Store
    blobs: BlobStore
    signals: Signals
    routes: Routes
    clock: Clock
    ids: IdMaker
    chance: random.Random
    keeper: Keeper
    observer: Observer
    make_scratch: ScratchMaker
    models: Models
    owner: str
    open_plan_cell: OpenPlanCell | None = None
    ends_only: bool = False


class Processor:
    """Works on batches until it is stopped.

    `stop` takes no more work, lets what is in flight land within the grace time, commits, and
    hands claims back. `abort` does the same without grace. Both may come before `run`, and twice.
    """

    def __init__(self, settings: Settings, tools: Tools) -> None:
        self._settings = settings
        self._tools = tools
        self._wake = asyncio.Event()
        self._hungry = asyncio.Event()
        self._cut = Cut()
        self._ledger_time = LedgerTime()
        self._storage = Storage(tools.store, tools.blobs, tools.observer)
        self._workers: asyncio.TaskGroup | None = None
        valves = settings.valves
        self._held = Held(
            Budget(valves.in_flight_bytes_max, valves.uncommitted_lines_max), self._storage
        )
        self._held.on_new = self._start_committer
        self._quarantine = Quarantine(
            tools.store,
            tools.chance,
            self._storage,
            tools.observer,
            cells_max=settings.cells.count_max,
        )
        self._quarantine.on_lost = self._lose
        self._dispatcher = Dispatcher(
            self._held,
            settings,
            chance=tools.chance,
            observer=tools.observer,
            quarantine=self._quarantine,
            on_hungry=self._on_hungry,
        )
        self._storage.on_room = self._held.budget.on_room = self._dispatcher.pump
        self._claimer = self._make_claimer()
        self._closer = self._make_closer()
        self._census = Census(
            tools.store,
            tools.routes,
            tools.owner,
            lease_seconds=settings.claims.lease_seconds,
            takes_part=not tools.ends_only,
        )
        self._whole = self._make_whole_batch()
        tools.keeper.owner = None if tools.ends_only else tools.owner
        tools.keeper.on_lost = self._closer.lose
        tools.keeper.on_full = self._storage.refused

    def _make_claimer(self) -> Claimer:
        tools = self._tools
        return Claimer(
            self._held,
            self._dispatcher,
            self._settings,
            ClaimerTools(
                store=tools.store,
                blobs=tools.blobs,
                routes=tools.routes,
                ledger_time=self._ledger_time,
                keeper=tools.keeper,
                quarantine=self._quarantine,
                observer=tools.observer,
                owner=tools.owner,
                ends_only=tools.ends_only,
            ),
        )

    def _make_closer(self) -> Closer:
        tools = self._tools
        return Closer(
            self._held,
            self._dispatcher,
            self._settings,
            CloserTools(
                store=tools.store,
                blobs=tools.blobs,
                signals=tools.signals,
                clock=tools.clock,
                ledger_time=self._ledger_time,
                keeper=tools.keeper,
                chance=tools.chance,
                storage=self._storage,
                observer=tools.observer,
            ),
        )

    def _make_whole_batch(self) -> WholeBatch:
        tools = self._tools
        planner = Planner(
            self._settings.planning,
            PlannerTools(
                store=tools.store,
                blobs=tools.blobs,
                routes=tools.routes,
                clock=tools.clock,
                ids=tools.ids,
                chance=tools.chance,
                storage=self._storage,
                make_scratch=tools.make_scratch,
                models=tools.models,
                observer=tools.observer,
                open_plan_cell=self.open_plan_cell,
            ),
        )
        return WholeBatch(
            self._settings.claims,
            WholeBatchTools(
                store=tools.store,
                signals=tools.signals,
                keeper=tools.keeper,
                observer=tools.observer,
                storage=self._storage,
                census=self._census,
                cut=self._cut,
                planner=planner,
                closer=self._closer,
                owner=tools.owner,
                ends_only=tools.ends_only,
            ),
        )

    def open_plan_cell(self, task: PlanTask) -> Cell:
        """Return a cell for the planning of a batch that may kill."""
        if self._tools.open_plan_cell is not None:
            return self._tools.open_plan_cell(task)
        return PlanCell(PlanDoor(task, self._tools.make_scratch))

    # Running and stopping

    async def run(self) -> None:
        """Work until stopped; every claim is handed back or ended by then.

        Raises:
            ExceptionGroup: something broke that can't be mended here, such as `StorageBroken`.
                Claims then expire by themselves.
        """
        self._tools.keeper.stamp()
        try:
            await self._run()
        finally:
            await self._quarantine.aclose()

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as helpers:
            tasks = [helpers.create_task(self._tools.keeper.run(), name="keeper")]
            if not self._tools.ends_only:
                tasks.append(helpers.create_task(self._dispatcher.run(), name="dispatcher"))
            tasks.append(helpers.create_task(self._listen(), name="listener"))
            try:
                # With the ledger or the disk away, commits are asked for without end: one lease
                # after the cut we leave all the same, and the claims expire by themselves.
                async with self._cut.bounds(after=self._settings.claims.lease_seconds):
                    await self._work()
            except TimeoutError:
                self._tools.observer.held_up(StoreUnavailable("Stopped with results uncommitted."))
            for task in tasks:
                task.cancel()
        # After the keeper, which would count us again.
        await self._census.leave()

    async def _work(self) -> None:
        async with asyncio.TaskGroup() as workers:
            self._workers = workers
            workers.create_task(self._shards(), name="shards")
            workers.create_task(self._whole.finalizing(), name="finalizing")
            for number in range(PLANNERS):
                workers.create_task(self._whole.planning(), name=f"planning {number}")

    @property
    def storage_reason(self) -> str | None:
        """Return why nothing new is sent, while the storage is full."""
        return self._storage.reason

    def stop(self) -> None:
        """Take no more work, and end `run` once what is in flight has landed and is committed."""
        self._end_within(self._settings.ends.stop_grace_seconds)

    def abort(self) -> None:
        """Cut what is in flight, commit what is there, and end `run`."""
        self._end_within(0.0)

    def _end_within(self, grace_seconds: float) -> None:
        """Stop; a later call may only bring the cut nearer."""
        cut_at = self._cut.set_within(grace_seconds)
        self._claimer.stopping = True
        self._census.give_up()
        self._closer.return_all(cut_at)
        self._on_hungry()

    # Loops

    async def _listen(self) -> None:
        """Wake the shard loop on every signal, and at every poll interval without one."""
        with self._tools.signals.listen((WORK, "batch/")) as listener:
            while True:
                await listener.wait(self._settings.claims.poll_seconds)
                self._wake.set()

    async def _shards(self) -> None:
        while not (self._cut.is_set() and not self._held.runs):
            await self._wake.wait()
            self._wake.clear()
            self._tools.keeper.stamp()
            try:
                await self._step()
            except StoreUnavailable as error:
                # Whatever was not answered is asked again at the next poll.
                self._tools.observer.held_up(error)
            except StorageFull as error:
                self._storage.refused(error)
            await self._digest()

    async def _digest(self) -> None:
        """Where lines for more than a while lie ready, let the next look wait until they run low.

        A look asks the ledger several questions, and at full speed each shard would cause two.
        """
        lines = sum(run.all_fresh for run in self._held.runs.values())
        if lines < FED_WINDOWS * self._settings.valves.in_flight_max or self._cut.is_set():
            return
        self._hungry.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(FED_PAUSE_SECONDS):
                await self._hungry.wait()

    def _on_hungry(self) -> None:
        self._hungry.set()
        self._wake.set()

    async def _step(self) -> None:
        self._claimer.measure()
        if not self._cut.is_set():
            await self._census.look()
        await self._storage.probe()
        await self._closer.watch()
        self._closer.return_unserved()
        await self._closer.hand_back()
        await self._quarantine.tidy()
        if not (self._cut.is_set() or self._storage.leaves_claims):
            await self._claimer.claim()
        await self._closer.explain()
        self._dispatcher.pump()
        self._tools.observer.observe(
            in_flight=self._dispatcher.in_flight,
            open_shards=self._held.open_shards,
            uncommitted=self._held.budget.lines_held,
        )
        for endpoint in self._tools.routes.endpoints():
            self._tools.observer.endpoint(
                endpoint.name,
                limit=endpoint.limiter.limit,
                in_flight=endpoint.limiter.in_flight,
                reason=endpoint.reason,
            )

    # Committers

    def _start_committer(self, run: Run) -> None:
        assert self._workers is not None, "the processor is not running"
        tools = self._tools
        committer = Committer(
            run,
            self._held,
            self._settings.commits,
            CommitterTools(
                store=tools.store,
                blobs=tools.blobs,
                clock=tools.clock,
                ids=tools.ids,
                chance=tools.chance,
                storage=self._storage,
                observer=tools.observer,
                owner=tools.owner,
            ),
            on_closed=self._on_closed,
        )
        self._workers.create_task(committer.run(), name=f"committer {run.id}")

    def _lose(self, claim: Claim) -> None:
        self._tools.keeper.drop(claim)
        self._closer.lose(claim)

    def _on_closed(self, shard: OpenShard) -> None:
        self._tools.keeper.drop(shard.claim)
        run = self._held.runs.get(shard.claim.unit.batch_id)
        if run is None or not run.shards:
            # Perhaps it was the last of its batch, whose books are to be closed now.
            self._tools.signals.notify(WORK)
        self._wake.set()
