"""What machines that drive a ledger at random stand on: a ledger, a clock, and power that fails.

A machine adds rules and invariants of its own, and is run with one of the two floors below it.
"""

import random
from abc import abstractmethod
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from hypothesis import HealthCheck, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from typing_extensions import override

from testkit.power.disk import PowerLossDisk
from testkit.power.vfs import sqlite_on
from tidegate.domain.ledger.values import Commit, ShardCommit
from tidegate.stores.base import Store
from tidegate.stores.memory import MemoryStore
from tidegate.testing.contract.stores import LEASE, ManualClock, a_commit

T = TypeVar("T")


def run(call: Coroutine[object, object, T]) -> T:
    """Run a call that never gives way, as is so where no thread and no network is behind it."""
    try:
        call.send(None)
    except StopIteration as stop:
        value: T = stop.value
        return value
    raise AssertionError("the call gave way")


def examples(count: int) -> settings:
    """Return the settings for this many runs of a machine."""
    return settings(
        max_examples=count,
        stateful_step_count=40,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


class LedgerMachine(RuleBasedStateMachine):
    """A ledger and a clock to turn."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.segments = 0
        self.store = self.open()

    @abstractmethod
    def open(self) -> Store:
        """Open a new ledger."""

    @abstractmethod
    def lose_power(self, chance: random.Random) -> None:
        """Cut the power, and open the ledger again."""

    def commit(self, batch_id: str, *parts: ShardCommit, writer: str | None = None) -> Commit:
        """Return a commit under a segment id of its own, by default by the writer of `planned`."""
        self.segments += 1
        return a_commit(
            *parts,
            segment=f"segment-{self.segments}",
            batch_id=batch_id,
            at=self.clock.now(),
            writer=writer,
        )

    @rule(seconds=st.sampled_from([1.0, LEASE - 1, LEASE, 2 * LEASE]))
    def time_passes(self, seconds: float) -> None:
        """Let claims come near their end, or to it."""
        self.clock.turn(seconds)

    @rule(seed=st.integers(0, 1_000_000))
    def power_is_cut(self, seed: int) -> None:
        """Lose power; every call was answered before, so nothing may change."""
        self.lose_power(random.Random(seed))


class OnMemory(LedgerMachine):
    """The ledger in memory, which knows no power."""

    @override
    def open(self) -> Store:
        return MemoryStore(self.clock)

    @override
    def lose_power(self, chance: random.Random) -> None:
        return


class OnDisk(LedgerMachine):
    """A ledger that speaks to SQLite, on a disk that forgets what was not flushed."""

    @abstractmethod
    def make_store(self, path: Path, vfs: str) -> Store:
        """Return a ledger with the machine's clock on this file layer, which never gives way."""

    @override
    def open(self) -> Store:
        self._folder = TemporaryDirectory()
        self._disk = PowerLossDisk(Path(self._folder.name).resolve())
        return self._opened()

    @override
    def lose_power(self, chance: random.Random) -> None:
        left = self._disk.restarted(chance)
        self._close()
        self._disk = left
        self.store = self._opened()

    @override
    def teardown(self) -> None:
        self._close()
        self._folder.cleanup()

    def _opened(self) -> Store:
        self._layer = ExitStack()
        vfs = self._layer.enter_context(sqlite_on(self._disk))
        return run(self.make_store(self._disk.root / "ledger.sqlite", vfs).__aenter__())

    def _close(self) -> None:
        run(self.store.__aexit__(None, None, None))
        self._layer.close()
