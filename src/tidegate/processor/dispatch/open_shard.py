"""A shard that this processor holds: which lines wait, are in flight, are delayed, or done."""

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

    RUNNING = "running"  # Its lines are sent as the limits allow.
    ENDING = "ending"  # Cancelled or expired: nothing more is sent; the rest gets end lines.
    RETURNING = "returning"  # Nothing more is sent; once all is committed it is handed back.
    LOST = "lost"  # Another holder has a higher epoch: late replies are dropped.
    CLOSED = "closed"  # Every line is committed.


# Constants, because each line compares them, and the lookup of an enum member costs more.
RUNNING: Final = OpenShardState.RUNNING
ENDING: Final = OpenShardState.ENDING
RETURNING: Final = OpenShardState.RETURNING
LOST: Final = OpenShardState.LOST
CLOSED: Final = OpenShardState.CLOSED


class Cancellable(Protocol):
    """An attempt in flight."""

    def cancel_at(self, when: float) -> None:
        """Cancel it at this time of the event loop, unless it is due earlier."""


class OpenShard:
    """The lines of one claimed shard. Times are seconds of the event loop.

    A shard in quarantine offers one line at a time: first those that killed no process, then the
    one in flight when the last holder died, and those that killed a process before. It sends
    nothing before `paused_until`.

    Attributes:
        return_due: when a shard that gives way to another batch should be back in the ledger.
        attempts, unsure, refusals: failed attempts by line and kind.
    """

    def __init__(
        self,
        claimed: ClaimedShard,
        lines: Sequence[PlanLine],
        *,
        endpoint: Endpoint | None,
        opened_at: float,
    ) -> None:
        plan = claimed.shard.plan
        assert len(lines) == plan.lines, "the plan holds another number of lines than the ledger"
        self.claim = claimed.claim
        self.number = plan.number
        self.model = plan.model
        self.endpoint = endpoint
        self.opened_at = opened_at
        self.sequence = claimed.shard.sequence
        self.state = OpenShardState.RUNNING
        self.return_due = math.inf
        self.lines = lines
        self.undecided = {i for i in range(plan.lines) if not is_done(claimed.shard.done, i)}
        self.uncommitted = 0
        self.in_flight: dict[int, Cancellable] = {}
        self.attempts: dict[int, int] = {}
        self.unsure: dict[int, int] = {}
        self.refusals: dict[int, int] = {}
        self.refused_at: dict[int, float] = {}
        self.is_quarantined = claimed.shard.is_quarantined
        self.paused_until = float("-inf")
        self.starts_failed = 0
        self.poison_lines = _poison_lines(claimed.shard)
        self._fresh: deque[int] = deque(_send_order(claimed.shard, self.undecided))
        self._delayed: list[tuple[float, int]] = []

    @property
    def fresh(self) -> int:
        """How many lines could be sent now."""
        return len(self._fresh)

    @property
    def is_settled(self) -> bool:
        """Whether no line is in flight or waits for a commit."""
        return not self.in_flight and not self.uncommitted

    @property
    def returns_at_once(self) -> bool:
        """Whether it is settled, and is to be handed back before the next poll.

        A shard that gives way waits for the poll, which offers the batch that it makes room for.
        """
        return self.is_settled and self.return_due == math.inf

    def is_leaving(self, now: float) -> bool:
        """Return whether its slot will be free soon: it is returning, and not late."""
        return self.state is OpenShardState.RETURNING and now < self.return_due

    def ready(self, now: float) -> int | None:
        """Return the line to be sent next, without taking it; None if none is ready."""
        if not self._delayed and not self.is_quarantined:
            return self._fresh[0] if self._fresh and self.state is RUNNING else None
        unsent = self.ready_unsent(now)
        if self.is_quarantined and unsent is not None:
            # Lines that killed a process are delayed, and run after all others.
            return unsent
        if self.retry_due(now) is not None:
            return self._delayed[0][1]
        return unsent

    def ready_unsent(self, now: float) -> int | None:
        """Return the first line that was never sent, without taking it; None if there is none."""
        return self._fresh[0] if self._fresh and self._may_send(now) else None

    def _may_send(self, now: float) -> bool:
        if self.state is not RUNNING:
            return False
        return not self.is_quarantined or (not self.in_flight and now >= self.paused_until)

    def take(self, index: int) -> PlanLine:
        """Take the line that `ready` returned."""
        if self._fresh and self._fresh[0] == index:
            self._fresh.popleft()
        else:
            due, taken = heapq.heappop(self._delayed)
            assert taken == index, (due, taken, index)
        return self.lines[index]

    def retry_due(self, now: float) -> float | None:
        """Return since when a delayed line could be sent again, or None."""
        if self._delayed and self._delayed[0][0] <= now and self._may_send(now):
            return self._delayed[0][0]
        return None

    def put_back(self, index: int) -> None:
        """Put a line whose attempt was cancelled first again."""
        self._fresh.appendleft(index)

    def retry_at(self, index: int, due: float) -> None:
        """Let a line wait until `due` without holding a slot."""
        heapq.heappush(self._delayed, (due, index))

    def drop_waiting(self) -> None:
        """Send none of the waiting lines: each has its result already."""
        assert not self.undecided, "a line would never get its result"
        self._fresh.clear()
        self._delayed.clear()

    def decide(self, index: int) -> None:
        """Record that the line has its result, which now waits for its commit."""
        self.undecided.remove(index)
        self.uncommitted += 1

    def cancel_attempts_at(self, when: float) -> None:
        """Cancel every attempt in flight at this time of the event loop."""
        for attempt in list(self.in_flight.values()):
            attempt.cancel_at(when)


def next_line(
    shards: Sequence[OpenShard], now: float, *, on_trial: bool
) -> tuple[OpenShard, int] | None:
    """Return the next line of the first shard that has one: neighbours share their prompts.

    `on_trial`: the endpoint failed lately, and this line tries it.
    """
    if on_trial:
        return _next_on_trial(shards, now)
    for shard in shards:
        index = shard.ready(now)
        if index is not None:
            return shard, index
    return None


def _next_on_trial(shards: Sequence[OpenShard], now: float) -> tuple[OpenShard, int] | None:
    """Return the line to try an endpoint with: one never sent, else the one delayed longest.

    The line that the endpoint refused last may be the reason for the refusal.
    """
    for shard in shards:
        index = shard.ready_unsent(now)
        if index is not None:
            return shard, index
    due = [(since, shard) for shard in shards if (since := shard.retry_due(now)) is not None]
    if not due:
        return None
    shard = min(due, key=lambda pair: pair[0])[1]
    index = shard.ready(now)
    assert index is not None
    return shard, index


def _poison_lines(shard: Shard) -> list[int]:
    """Return the open lines that killed `DEATHS_TO_BLAME` processes."""
    return [
        index
        for index, count in sorted(shard.deaths.items())
        if count >= DEATHS_TO_BLAME and not is_done(shard.done, index)
    ]


def _send_order(shard: Shard, undecided: set[int]) -> list[int]:
    """Return the lines that may be sent, suspects last."""
    suspects = {index for index, count in shard.deaths.items() if count}
    if shard.is_quarantined and shard.suspect is not None:
        suspects.add(shard.suspect)
    open_lines = undecided - set(_poison_lines(shard))
    return sorted(open_lines - suspects) + sorted(open_lines & suspects)
