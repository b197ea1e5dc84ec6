"""A dispatcher by itself: what one turn of the loop does, and what it does not do any more."""

import asyncio
import random
from collections.abc import Sequence

import pytest
from typing_extensions import override

from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Batch, Status
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.errors import ConnectFailed, UpstreamFault
from tidegate.domain.shard import Shard, ShardPlan, no_lines_done
from tidegate.processor.dispatcher import (
    BYTES_AT_ONCE,
    BYTES_WAIT_SECONDS_MAX,
    LANDINGS_AT_ONCE,
    STARTS_AT_ONCE,
    Dispatcher,
)
from tidegate.processor.endpoints import Endpoint
from tidegate.processor.held import Held
from tidegate.processor.observer import Observer
from tidegate.processor.open_shard import OpenShard, State
from tidegate.processor.quarantine import Quarantine
from tidegate.processor.run import Budget, Run
from tidegate.processor.settings import Settings, Valves
from tidegate.processor.storage import Storage
from tidegate.runtime.limiter import AimdSettings
from tidegate.stores.base import ClaimedShard
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import ManualClock
from tidegate.testing.loop import run_virtual
from tidegate.upstreams.base import Call, Receiver, Reply, Sending, Unanswered, Upstream
from tidegate.wire.plan_format import PlanLine

FAR = 1e6


class Doors(Upstream):
    """Begins every call and answers none by itself."""

    def __init__(self) -> None:
        self.begun: list[Receiver] = []
        self.afresh = 0
        self.gate: asyncio.Event | None = None
        self.fault: UpstreamFault | None = None

    @override
    def begin(self, call: Call, receiver: Receiver) -> Sending | None:
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
    async def send_afresh(self, call: Call) -> Reply:
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
    """Counts what is told of each turn in which something landed."""

    def __init__(self) -> None:
        self.turns: list[int] = []
        self.outcomes: list[str] = []
        self.crashes = 0

    @override
    def attempts(self, endpoint: str, outcome: str, count: int) -> None:
        self.turns.append(count)
        self.outcomes.append(outcome)

    @override
    def crashed(self, error: Exception) -> None:
        self.crashes += 1


REPLY = Reply(status=200, headers={}, body=b"{}")


class Tower:
    """A dispatcher with one batch."""

    def __init__(self, valves: Valves | None = None) -> None:
        chosen = valves or Valves(
            in_flight_max=10_000, in_flight_bytes_max=2**40, uncommitted_lines_max=100_000
        )
        self.observer = Counting()
        store = MemoryStore(ManualClock())
        storage = Storage(store, MemoryBlobs(appends=True), self.observer)
        self.held = Held(Budget(chosen.in_flight_bytes_max, chosen.uncommitted_lines_max), storage)
        self.held.on_new = lambda _: None
        chance = random.Random(0)
        self.dispatcher = Dispatcher(
            self.held,
            Settings(valves=chosen),
            chance=chance,
            observer=self.observer,
            quarantine=Quarantine(store, chance, storage, self.observer, cells_max=1),
            on_hungry=lambda: None,
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
        self, doors: Doors, bodies: Sequence[bytes], *, model: str = "m"
    ) -> tuple[Run, OpenShard]:
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
        limits = AimdSettings(start=10_000, max=10_000)
        opened = OpenShard(
            ClaimedShard(claim=claim, shard=shard),
            [PlanLine(index, b'"x"', body) for index, body in enumerate(bodies)],
            endpoint=Endpoint(model, doors, limits=limits),
            opened_at=0.0,
        )
        return self.held.open(self.batch, opened), opened

    @property
    def run(self) -> Run:
        """Return the run of the batch."""
        return self.held.runs[self.batch.id]


async def turn() -> None:
    """Let whatever is due on the loop happen once."""
    await asyncio.sleep(0)


class Running:
    """Runs a dispatcher inside a block, by turns that the test takes."""

    def __init__(self, tower: Tower) -> None:
        self._dispatcher = tower.dispatcher
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


def test_one_turn_starts_and_takes_in_no_more_than_its_bounds() -> None:
    async def story() -> None:
        tower, doors = Tower(), Doors()
        tower.open(doors, [b"{}"] * 1_000)
        async with Running(tower):
            await turn()
            assert len(doors.begun) == STARTS_AT_ONCE
            for _ in range(20):
                await turn()
            assert len(doors.begun) == 1_000
            doors.answer_all(REPLY)
            for _ in range(20):
                await turn()
        assert tower.observer.turns == [LANDINGS_AT_ONCE] * 10
        assert tower.dispatcher.in_flight == 0

    run_virtual(story())


@pytest.mark.parametrize(("extra", "started"), [(0, 4), (-1, 5)])
def test_one_turn_starts_only_so_many_bytes(extra: int, started: int) -> None:
    async def story() -> None:
        tower, doors = Tower(), Doors()
        tower.open(doors, [b"x" * (BYTES_AT_ONCE // 4 + extra)] * 12)
        async with Running(tower):
            await turn()
            assert len(doors.begun) == started
            for _ in range(4):
                await turn()
            assert len(doors.begun) == 12

    run_virtual(story())


@pytest.mark.parametrize(("extra", "landed"), [(0, 4), (-1, 5)])
def test_one_turn_takes_in_only_so_many_bytes(extra: int, landed: int) -> None:
    async def story() -> None:
        tower, doors = Tower(), Doors()
        _, shard = tower.open(doors, [b""] * 12)
        async with Running(tower):
            for _ in range(3):
                await turn()
            doors.answer_all(
                Reply(status=200, headers={}, body=b" " * (BYTES_AT_ONCE // 4 + extra))
            )
            for _ in range(5):
                await turn()
        assert tower.observer.turns[0] == landed
        assert sum(tower.observer.turns) == 12
        assert not shard.flights

    run_virtual(story())


def test_lines_too_large_for_the_room_that_others_leave_get_their_turn_in_time() -> None:
    async def story() -> None:
        valves = Valves(
            in_flight_max=10_000, in_flight_bytes_max=4 * 2**20, uncommitted_lines_max=100_000
        )
        tower, small, large = Tower(valves), Doors(), Doors()
        _, others = tower.open(small, [b"{}"] * 5_000, model="small")
        started: list[float] = []

        async def go_on() -> None:
            # Some end all the time, in whose place other small ones fit.
            await asyncio.sleep(0.1)
            small.answer_some(20, REPLY)
            budget, run = tower.held.budget, tower.run
            budget.bytes_held -= sum(len(entry.line) for entry in run.entries)
            budget.lines_held -= len(run.entries)
            run.entries.clear()
            if large.begun:
                started.append(asyncio.get_running_loop().time())
                large.answer_all(REPLY)

        async with Running(tower):
            for _ in range(20):
                await go_on()
            opened = asyncio.get_running_loop().time()
            _, shard = tower.open(large, [b"x" * 3 * 2**20] * 2, model="large")
            while shard.undecided:
                await go_on()
                assert others.fresh, "it waits until all others are gone"
        assert started[0] - opened >= BYTES_WAIT_SECONDS_MAX, "all that fits goes before"

    run_virtual(story())


def test_room_kept_for_a_model_without_more_lines_is_given_to_others_at_once() -> None:
    async def story() -> None:
        tower, few, many = Tower(Valves(in_flight_max=8)), Doors(), Doors()
        tower.open(few, [b"{}"] * 3, model="few")
        tower.open(many, [b"{}"] * 50, model="many")
        async with Running(tower):
            for _ in range(3):
                await turn()
            assert (len(few.begun), len(many.begun)) == (3, 5)

    run_virtual(story())


@pytest.mark.parametrize("over", ["deadline", "cancelled", "returning"])
def test_what_stayed_unanswered_is_not_sent_again_once_nothing_may_be_sent(over: str) -> None:
    async def story() -> None:
        tower, doors = Tower(), Doors()
        run, shard = tower.open(doors, [b"{}"] * 3)
        async with Running(tower):
            await turn()
            assert len(doors.begun) == 3
            match over:
                case "deadline":
                    run.ends_at = asyncio.get_running_loop().time()
                case "cancelled":
                    shard.state = State.ENDING
                case _:
                    shard.state = State.RETURNING
            doors.answer_all(Unanswered("Closed."))
            for _ in range(3):
                await turn()
            assert doors.afresh == 0
            assert not shard.flights

    run_virtual(story())


def test_nothing_is_sent_again_while_a_dispatcher_ends() -> None:
    async def story() -> None:
        tower, doors = Tower(), Doors()
        doors.gate = asyncio.Event()
        tower.open(doors, [b"{}"] * 3)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(tower.dispatcher.run(), name="dispatcher")
            await turn()
            await turn()
            doors.begun.pop().on_reply(Unanswered("Closed."))
            await turn()
            task.cancel()
            await turn()
            assert not task.done(), "one call takes its time to end"
            doors.answer_all(Unanswered("Closed."))
            doors.gate.set()
        assert doors.afresh == 1

    run_virtual(story())


def test_what_stayed_unanswered_is_sent_once_more() -> None:
    async def story() -> None:
        tower, doors = Tower(), Doors()
        run, _ = tower.open(doors, [b"{}"] * 3)
        async with Running(tower):
            await turn()
            doors.answer_all(Unanswered("Closed."))
            for _ in range(5):
                await turn()
        assert (doors.afresh, len(run.entries), run.in_flight) == (3, 3, 0)

    run_virtual(story())


def test_a_call_that_could_not_begin_for_a_fault_of_the_server_is_no_crash_of_ours() -> None:
    async def story() -> None:
        tower, doors = Tower(), Doors()
        doors.fault = ConnectFailed("Nobody there.")
        _, shard = tower.open(doors, [b"{}"])
        async with Running(tower):
            for _ in range(3):
                await turn()
            assert shard.endpoint is not None
            assert shard.endpoint.is_paused(asyncio.get_running_loop().time())
        assert (tower.observer.outcomes, tower.observer.crashes) == (["endpoint"], 0)

    run_virtual(story())


def test_a_mistake_of_ours_at_a_turn_ends_the_dispatcher() -> None:
    async def story() -> None:
        tower, doors = Tower(), Doors()
        _, shard = tower.open(doors, [b"{}"])
        async with Running(tower):
            await turn()
            doors.answer_all(REPLY)
            shard.flights.clear()
            for _ in range(4):
                await turn()

    with pytest.raises(ExceptionGroup) as caught:
        run_virtual(story())
    assert caught.value.subgroup(KeyError) is not None
