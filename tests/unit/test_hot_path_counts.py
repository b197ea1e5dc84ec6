"""What a line causes on its way, counted exactly: most of it nothing.

Batches of two lengths are run in virtual time; what the longer one has more of is what its
further lines caused. Nothing here depends on the machine.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import apsw
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from typing_extensions import TypeVarTuple, Unpack, override

from testkit.scenarios.batch_run import BatchSetup, Stopwatch, lines_of, run_batch
from tidegate.processor.dispatch import dispatcher
from tidegate.processor.dispatch.dispatcher import SETTLED_PER_TURN
from tidegate.runtime.clock import Clock
from tidegate.stores.sqlite import SqliteStore
from tidegate.telemetry.processor_metrics import ProcessorMetrics
from tidegate.testing.inline_lanes import InlineExecutor
from tidegate.testing.loop import VirtualLoop
from tidegate.upstreams.base import Call, Reply, Upstream

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

SHORT, LONG = 2_000, 4_000

# For 1,000 lines, of which the server answers 256 together. As counted when this was written:
# 0, 6, 7, 40, 58, 2.5, 0 and 1,000.
MOST = {
    "tasks": 0,
    "futures": 10,
    "timers": 10,
    "wake-ups": 60,
    "statements": 65,
    "transactions": 3,
    "log events": 0,
    "writes to the server": 1_000,
}


class CountingLoop(VirtualLoop):
    """Counts what is asked of it."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        super().__init__()

    @override
    def create_task(
        self,
        coro: Generator[object, None, T] | Coroutine[object, object, T],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> asyncio.Task[T]:
        self.counts["tasks"] += 1
        return super().create_task(coro, name=name, context=context)

    @override
    def create_future(self) -> asyncio.Future[object]:
        self.counts["futures"] += 1
        return super().create_future()

    @override
    def call_soon(
        self, callback: Callable[[Unpack[Ts]], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        self.counts["wake-ups"] += 1
        return super().call_soon(callback, *args, context=context)

    @override
    def call_at(
        self,
        when: float,
        callback: Callable[[Unpack[Ts]], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        self.counts["timers"] += 1
        return super().call_at(when, callback, *args, context=context)


class Watch(ProcessorMetrics, Stopwatch):
    """Counts and logs as in production, and sees how much one turn of the loop settles."""

    def __init__(self) -> None:
        super().__init__(CollectorRegistry())
        self.settled: Counter[int] = Counter()

    @override
    def on_attempts(self, endpoint: str, outcome: str, count: int) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.settled[loop.turns] += count
        super().on_attempts(endpoint, outcome, count)


@dataclass
class ByTask(Upstream):
    """Begins nothing: each line is carried by a task of its own, and waits for a future more."""

    inner: Upstream
    sent: int = field(default=0)

    @override
    async def send(self, call: Call) -> Reply:
        self.sent += 1
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        loop.call_soon(turn.set_result, None)
        await turn
        return await self.inner.send(call)

    @override
    async def aclose(self) -> None:
        await self.inner.aclose()


@contextmanager
def statements_counted() -> Iterator[Counter[str]]:
    """Count what SQLite is asked, over all connections that are opened in the block."""
    found: Counter[str] = Counter()

    def note(event: dict[str, object]) -> None:
        found["statements"] += 1
        found["transactions"] += str(event["sql"]).startswith("COMMIT")

    def watch(connection: apsw.Connection) -> None:
        connection.trace_v2(apsw.SQLITE_TRACE_STMT, note)

    apsw.connection_hooks.append(watch)
    try:
        yield found
    finally:
        apsw.connection_hooks.remove(watch)


def counted(lines: int, folder: Path, setup: BatchSetup) -> Counter[str]:
    path = folder / f"ledger-{lines}.db"

    def make_store(clock: Clock) -> SqliteStore:
        return SqliteStore(path, clock, InlineExecutor())

    setup.make_store = make_store
    with (
        statements_counted() as found,
        capture_logs() as logs,
        asyncio.Runner(loop_factory=CountingLoop) as runner,
    ):
        loop = runner.get_loop()
        assert isinstance(loop, CountingLoop)
        cost = runner.run(run_batch(lines_of(lines), setup))
        found.update(loop.counts)
    found["log events"] = len(logs)
    found["writes to the server"] = cost.requests
    return found


def for_1000_lines(folder: Path, make_setup: Callable[[], BatchSetup]) -> dict[str, float]:
    short = counted(SHORT, folder, make_setup())
    long = counted(LONG, folder, make_setup())
    return {name: (long[name] - short[name]) / (LONG - SHORT) * 1_000 for name in MOST}


def test_a_line_causes_next_to_nothing_beside_its_request(tmp_path: Path) -> None:
    found = for_1000_lines(tmp_path, lambda: BatchSetup(watch=Watch()))
    assert {name: count for name, count in found.items() if count > MOST[name]} == {}
    assert found["writes to the server"] == 1_000, "one request, one write"
    assert found["statements"] > 0, "nothing was counted"


def test_a_task_for_each_line_is_found(tmp_path: Path) -> None:
    found = for_1000_lines(tmp_path, lambda: BatchSetup(watch=Watch(), wrap_upstream=ByTask))
    assert found["tasks"] == 1_000
    assert found["futures"] >= 1_000
    assert found["wake-ups"] >= 2_000


def settled_at_one_turn() -> int:
    watch = Watch()
    setup = BatchSetup(watch=watch, in_flight=3 * SETTLED_PER_TURN)
    with capture_logs(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(run_batch(lines_of(SHORT), setup))
    assert watch.settled.total() == SHORT
    return max(watch.settled.values())


def test_one_turn_of_the_loop_settles_a_bounded_number_of_lines() -> None:
    assert settled_at_one_turn() == SETTLED_PER_TURN


def test_a_turn_that_settles_all_at_once_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "SETTLED_PER_TURN", SHORT)
    assert settled_at_one_turn() == 3 * SETTLED_PER_TURN
