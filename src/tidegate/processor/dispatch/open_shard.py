"""A shard that this processor holds: which of its lines wait, fly, sleep, or have come back."""

import heapq
import math
from collections import deque
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Protocol

from tidegate.domain.ledger.values import ClaimedShard
from tidegate.domain.shard import DEATHS_TO_BLAME, Shard, is_done
from tidegate.endpoints.endpoint import Endpoint
from tidegate.wire.plan_format import PlanLine


class OpenShardState(StrEnum):
    """What is being done with an open shard."""

    RUNNING = "running"  # Its lines are sent as the valves allow.
    ENDING = "ending"  # Cancelled or expired: nothing more is sent; the rest gets end lines.
    RETURNING = "returning"  # Nothing more is sent; once all is committed it is handed back.
    LOST = "lost"  # Another holder has a higher epoch: whatever still comes back is dropped.
    CLOSED = "closed"  # Every line is committed.


# By names of their own, since each line asks for some of them: the interpreter finds a member of an
# enumeration by code in Python.
RUNNING: Final = OpenShardState.RUNNING
ENDING: Final = OpenShardState.ENDING
RETURNING: Final = OpenShardState.RETURNING
LOST: Final = OpenShardState.LOST
CLOSED: Final = OpenShardState.CLOSED


class Cancellable(Protocol):
    """A line under way."""

    def cut_at(self, when: float) -> None:
        """Give it until `when` to land; an earlier limit stays."""
        ...


class OpenShard:
    """The lines of one claimed shard. Times are seconds of the event loop.

    A shard in quarantine offers one line at a time: first those of which nobody died, then the one
    that was under way when the last holder died, and those that killed a process before. It sends
    nothing before `rests_until`.
    """

    def __init__(
        self,
        held: ClaimedShard,
        lines: Sequence[PlanLine],
        *,
        endpoint: Endpoint | None,
        opened_at: float,
    ) -> None:
        plan = held.shard.plan
        assert len(lines) == plan.lines, "the plan holds another number of lines than the ledger"
        self.claim = held.claim
        self.number = plan.number
        self.model = plan.model
        self.endpoint = endpoint
        self.opened_at = opened_at
        self.sequence = held.shard.sequence
        self.state = OpenShardState.RUNNING
        self.gone_by = math.inf
        self.lines = lines
        self.undecided = {i for i in range(plan.lines) if not is_done(held.shard.done, i)}
        self.uncommitted = 0
        self.flights: dict[int, Cancellable] = {}
        self.attempts: dict[int, int] = {}
        self.unsure: dict[int, int] = {}
        self.refusals: dict[int, int] = {}
        self.refused_at: dict[int, float] = {}
        self.is_quarantined = held.shard.is_quarantined
        self.rests_until = float("-inf")
        self.starts_failed = 0
        self.blamed = _blamed(held.shard)
        self._fresh: deque[int] = deque(_in_order(held.shard, self.undecided))
        self._sleeping: list[tuple[float, int]] = []

    @property
    def fresh(self) -> int:
        """Return how many lines could be sent at once."""
        return len(self._fresh)

    @property
    def is_settled(self) -> bool:
        """Say whether nothing is in flight and nothing waits for a commit."""
        return not self.flights and not self.uncommitted

    @property
    def returns_at_once(self) -> bool:
        """Return whether it is to be handed back before the next poll, now that it is settled.

        One that gives way is not: the batch that it makes room for is on offer again by that poll.
        """
        return self.is_settled and self.gone_by == math.inf

    def is_leaving(self, now: float) -> bool:
        """Say whether its place is about to be free: nothing of it is sent, and it is not late."""
        return self.state is OpenShardState.RETURNING and now < self.gone_by

    def ready(self, now: float) -> int | None:
        """Return the line to be sent next, without taking it; None when none is ready."""
        if not self._sleeping and not self.is_quarantined:
            return self._fresh[0] if self._fresh and self.state is RUNNING else None
        unsent = self.ready_unsent(now)
        if self.is_quarantined and unsent is not None:
            # What killed a process sleeps first, and then lets all others go before it.
            return unsent
        if self.sleeper_due(now) is not None:
            return self._sleeping[0][1]
        return unsent

    def ready_unsent(self, now: float) -> int | None:
        """Return the first line that was never sent, without taking it; None when there is none."""
        return self._fresh[0] if self._fresh and self._may_send(now) else None

    def _may_send(self, now: float) -> bool:
        if self.state is not RUNNING:
            return False
        return not self.is_quarantined or (not self.flights and now >= self.rests_until)

    def take(self, index: int) -> PlanLine:
        """Take the line that `ready` named."""
        if self._fresh and self._fresh[0] == index:
            self._fresh.popleft()
        else:
            due, taken = heapq.heappop(self._sleeping)
            assert taken == index, (due, taken, index)
        return self.lines[index]

    def sleeper_due(self, now: float) -> float | None:
        """Return since when a sleeping line could be sent again, or None."""
        if self._sleeping and self._sleeping[0][0] <= now and self._may_send(now):
            return self._sleeping[0][0]
        return None

    def put_back(self, index: int) -> None:
        """Let a line whose flight was cut go first again."""
        self._fresh.appendleft(index)

    def sleep_until(self, index: int, due: float) -> None:
        """Let a line wait without holding a slot."""
        heapq.heappush(self._sleeping, (due, index))

    def forget_waiting(self) -> None:
        """Send none of the waiting lines: each has its result already."""
        assert not self.undecided, "a line would never get its result"
        self._fresh.clear()
        self._sleeping.clear()

    def decide(self, index: int) -> None:
        """Record that the line has its result, which now waits for its commit."""
        self.undecided.remove(index)
        self.uncommitted += 1

    def cut_flights(self, when: float) -> None:
        """Give every flight until `when` to land."""
        for flight in list(self.flights.values()):
            flight.cut_at(when)


def next_line(
    shards: Sequence[OpenShard], now: float, *, on_trial: bool
) -> tuple[OpenShard, int] | None:
    """Return the next line of the first shard that has one: neighbours share their prompts.

    `on_trial`: the endpoint refused lately, and this line tries it out.
    """
    if on_trial:
        return _next_on_trial(shards, now)
    for shard in shards:
        index = shard.ready(now)
        if index is not None:
            return shard, index
    return None


def _next_on_trial(shards: Sequence[OpenShard], now: float) -> tuple[OpenShard, int] | None:
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


def _blamed(shard: Shard) -> list[int]:
    """Return the open lines that killed as many processes as it takes."""
    return [
        index
        for index, count in sorted(shard.deaths.items())
        if count >= DEATHS_TO_BLAME and not is_done(shard.done, index)
    ]


def _in_order(shard: Shard, undecided: set[int]) -> list[int]:
    """Return the lines that may be sent, those under suspicion last."""
    suspects = {index for index, count in shard.deaths.items() if count}
    if shard.is_quarantined and shard.suspect is not None:
        suspects.add(shard.suspect)
    open_lines = undecided - set(_blamed(shard))
    return sorted(open_lines - suspects) + sorted(open_lines & suspects)
