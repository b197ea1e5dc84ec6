"""What all processes of a world stand on: the ledger, blobs, signals, time, and one chance."""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol

from testkit.world.account import Account
from testkit.world.blob_account import BlobAccount
from testkit.world.broken import Complaints
from testkit.world.fencing import Fencing
from testkit.world.host import Host
from testkit.world.members import MemberAccount
from testkit.world.observed import WatchedBlobs, watched
from testkit.world.odds import Odds
from testkit.world.timeline import Timeline
from tidegate.pubsub.base import PubSub
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.stores.base import Store
from tidegate.testing.ids import SeededIds
from tidegate.testing.loop import LoopClock

TENANTS = ("default", "other")
MODELS = ("fast", "slow", "flaky", "nobody")
ENDPOINT = "/v1/chat/completions"
FAULTS_SECONDS = 60.0


class MakeStore(Protocol):
    """Opens the ledger of a world."""

    def __call__(self, clock: LoopClock) -> Store:
        """Return a ledger that reads this clock."""
        ...


@dataclass(slots=True)
class Report:
    """What happened in one world."""

    seed: int
    lines: int = 0
    requests: int = 0
    crashes: int = 0
    child_deaths: int = 0
    failed_flushes: int = 0
    commits_refused: int = 0
    ended_by_collectors: int = 0
    exposed_lines_max: int = 0
    seconds: float = 0.0
    statuses: Counter[str] = field(default_factory=Counter)


class Environment:
    """The ports without faults, the account that watches them, and every host ever started."""

    def __init__(self, seed: int, make_store: MakeStore) -> None:
        self.rng = random.Random(seed)
        # A chance of their own, so that most seeds keep their stories.
        bad_disks = random.Random(f"bad disks {seed}")
        self.odds = Odds.swarm(self.rng).with_bad_disks(bad_disks)
        self.clock = LoopClock(asyncio.get_running_loop())
        self.ids = SeededIds(self.fork())
        self.timeline = Timeline()
        self.complaints = Complaints(self.timeline)
        self.blobs = WatchedBlobs(self.complaints, appends=self.rng.random() < 0.6)  # noqa: PLR2004 - a bit more often than not
        self.raw_store = make_store(self.clock)
        self.holdings = BlobAccount(self.raw_store, self.blobs, self.clock)
        self.blobs.holdings = self.holdings
        self.account = Account(self.raw_store, self.holdings, self.clock)
        self.living = MemberAccount(self.clock)
        self.store = watched(
            self.raw_store,
            self.complaints,
            self.account,
            Fencing(self.account, self.clock),
            self.holdings,
            self.living,
        )
        self.pubsub: PubSub = MemoryPubSub()
        self.calm = False
        self.calm_since: float | None = None
        self.leapt_at = float("-inf")
        self.report = Report(seed)
        self.endpoint_limit = self.rng.choice([1, 3, 8])
        self.poison: set[str] = set()
        self.unlucky: set[tuple[str, str]] = set()
        self.unlucky_plans: set[str] = set()
        self._hosts: list[Host] = []

    def fork(self) -> random.Random:
        """Return a chance of its own for one actor, so that actors do not shift each other's."""
        return random.Random(self.rng.getrandbits(64))

    def host(self, name: str) -> Host:
        """Start a process."""
        odds = self.odds.calm() if self.calm else self.odds
        host = Host(name, self.fork(), odds, self.timeline, self.clock)
        host.clock.passed_seconds = self.clock.passed_seconds
        self._hosts = [*(other for other in self._hosts if other.alive), host]
        return host

    def is_growing(self, name: str) -> bool:
        """Return whether a living process may append to this blob of results."""
        return self.blobs.appends and self.holdings.is_growing(name)

    @property
    def settled_at(self) -> float:
        """Return when a process was started last, or was in trouble last, in loop time."""
        return max(host.settled_at for host in self._hosts)

    def become_calm(self) -> None:
        """Let nothing go wrong any more, here and in every process."""
        self.calm = True
        self.calm_since = asyncio.get_running_loop().time()
        for host in self._hosts:
            host.calm()

    def pass_time(self, seconds: float) -> None:
        """Let so much time pass by the clocks of the ledger and of every host, and nothing else."""
        for clock in (self.clock, *(host.clock for host in self._hosts)):
            clock.passed_seconds += seconds
        self.leapt_at = asyncio.get_running_loop().time()
