"""A dispatcher alone, with one batch and upstreams that answer on request."""

import asyncio
import random
from collections.abc import Sequence

from typing_extensions import override

from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Batch, Status
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.errors import UpstreamFault
from tidegate.domain.ledger.values import ClaimedShard
from tidegate.domain.shard import Shard, ShardPlan, no_lines_done
from tidegate.endpoints.endpoint import Endpoint
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.processor.dispatch.dispatcher import Dispatcher
from tidegate.processor.dispatch.open_batch import Budget, OpenBatch, OpenBatches
from tidegate.processor.dispatch.open_shard import OpenShard
from tidegate.processor.dispatch.quarantine import Quarantine
from tidegate.processor.observer import Observer
from tidegate.processor.settings import InFlightLimits, Settings
from tidegate.processor.wakeups import Wakeups
from tidegate.processor.write_gate import WriteGate
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import ManualClock
from tidegate.upstreams.base import Call, PendingCall, Receiver, Reply, Upstream
from tidegate.wire.plan_format import PlanLine

FAR = 1e6


class ManualUpstream(Upstream):
    """Begins every call and answers none by itself."""

    def __init__(self) -> None:
        self.begun: list[Receiver] = []
        self.afresh = 0
        self.gate: asyncio.Event | None = None
        self.fault: UpstreamFault | None = None

    @override
    def begin(self, call: Call, receiver: Receiver) -> PendingCall | None:
        if self.fault is not None:
            raise self.fault
        self.begun.append(receiver)
        return self

    def abandon(self, receiver: Receiver) -> None:
        """End a call."""
        self.begun.remove(receiver)

    def answer_all(self, result: Reply | UpstreamFault) -> None:
        """Let every call land at once."""
        begun, self.begun = self.begun, []
        for receiver in begun:
            receiver.on_reply(result)

    def answer_some(self, count: int, result: Reply) -> None:
        """Let the calls land that have been under way longest."""
        some, self.begun = self.begun[:count], self.begun[count:]
        for receiver in some:
            receiver.on_reply(result)

    @override
    async def send(self, call: Call) -> Reply:
        raise AssertionError("every call was begun")

    @override
    async def send_on_new_connection(self, call: Call) -> Reply:
        self.afresh += 1
        try:
            if self.gate is not None:
                await asyncio.get_running_loop().create_future()
        finally:
            if self.gate is not None:
                await self.gate.wait()
        return REPLY

    @override
    async def aclose(self) -> None:
        """Nothing to close."""


class Counting(Observer):
    """Counts what is reported of each turn in which an attempt finished."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.outcomes: list[str] = []
        self.crashes = 0

    @override
    def on_attempts(self, endpoint: str, outcome: str, count: int) -> None:
        self.turns.append(count)
        self.outcomes.append(outcome)

    @override
    def on_upstream_crash(self, error: Exception) -> None:
        self.crashes += 1


REPLY = Reply(status=200, headers={}, body=b"{}")


class DispatcherBench:
    """A dispatcher with one batch."""

    def __init__(self, limits: InFlightLimits | None = None) -> None:
        chosen = limits or InFlightLimits(
            in_flight_max=10_000, in_flight_bytes_max=2**40, uncommitted_lines_max=100_000
        )
        self.observer = Counting()
        store = MemoryStore(ManualClock())
        wakeups = Wakeups()
        storage = WriteGate(
            store, MemoryBlobs(appends=True), self.observer, wakeups, random.Random(0)
        )
        budget = Budget(chosen.in_flight_bytes_max, chosen.uncommitted_lines_max, wakeups)
        self.open_batches = OpenBatches(budget, storage, self.observer)
        rng = random.Random(0)
        self.dispatcher = Dispatcher(
            self.open_batches,
            Settings(limits=chosen),
            rng=rng,
            observer=self.observer,
            quarantine=Quarantine(
                store, storage, self.observer, sandboxes_max=1, on_lost=self.open_batches.lose
            ),
            wakeups=wakeups,
        )
        self.batch = Batch(
            id="batch_1",
            tenant="default",
            endpoint="/v1/x",
            input_file_id="file-1",
            completion_window="24h",
            status=Status.IN_PROGRESS,
            created_at=0.0,
            expires_at=FAR,
        )
        self.number = 0

    def open(
        self,
        doors: ManualUpstream,
        bodies: Sequence[bytes],
        *,
        model: str = "m",
        limits: AimdSettings | None = None,
    ) -> tuple[OpenBatch, OpenShard]:
        """Open a shard of lines with these bodies."""
        self.number += 1
        plan = ShardPlan(number=self.number, model=model, offset=0, length=1, lines=len(bodies))
        claim = Claim(
            unit=Unit(batch_id=self.batch.id, kind=Kind.SHARD, number=self.number),
            owner="me",
            epoch=1,
            expires_at=FAR,
        )
        shard = Shard(batch_id=self.batch.id, plan=plan, done=no_lines_done(len(bodies)), epoch=1)
        limits = limits or AimdSettings(start=10_000, max=10_000)
        opened = OpenShard(
            ClaimedShard(claim=claim, shard=shard),
            [PlanLine(index, b'"x"', body) for index, body in enumerate(bodies)],
            endpoint=Endpoint(model, doors, limits=limits),
            opened_at=0.0,
        )
        return self.open_batches.open(self.batch, opened), opened

    @property
    def run(self) -> OpenBatch:
        """Return the open batch."""
        return self.open_batches.by_id[self.batch.id]


async def turn() -> None:
    """Let everything that is due on the loop happen once."""
    await asyncio.sleep(0)


class Running:
    """Runs a dispatcher inside a block, by turns that the test takes."""

    def __init__(self, listener: DispatcherBench) -> None:
        self._dispatcher = listener.dispatcher
        self._group = asyncio.TaskGroup()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> None:
        await self._group.__aenter__()
        self._task = self._group.create_task(self._dispatcher.run(), name="dispatcher")
        await turn()

    async def __aexit__(self, *exc: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await self._group.__aexit__(None, None, None)
