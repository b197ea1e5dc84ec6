"""What a crash of one processor would repeat: lines in flight or answered, not yet recorded.

That is what the promise bounds: at most the lines in flight and the uncommitted results, and the
processor's limits say how many that may be. A line whose result waits here is never sent again.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from testkit.world.account import Account, WriteGrant
from testkit.world.broken import Broken
from tidegate.domain.claim import Kind, Unit

Line = tuple[str, str]
SETTLED_SECONDS = 10.0
# Unix seconds as a float are no finer.
_CLOCK_GRAIN_SECONDS = 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Sent:
    """A line that was sent, or came back, at `at` (loop time), and its sender's claim."""

    line: Line
    epoch: int
    owner: str
    at: float


class Exposure:
    """The lines that one processor answers for. `lines_max` is what its limits allow."""

    def __init__(self, account: Account, owner: str, lines_max: int) -> None:
        self._account = account
        self._owner = owner
        self._lines_max = lines_max
        self._in_flight: set[Sent] = set()
        self._landed: dict[Line, Sent] = {}
        self.most = 0

    def send(self, line: Line, *, calm_since: float | None, now: float) -> Sent:
        """Record that a line is on its way, at `now` by the ledger's clock.

        Raises:
            Broken: its result is here already, more is under way than the limits allow, or (once
                the world is calm) its batch is over, or other results of this processor wait too
                long for their commit.
        """
        right = self._right(line)
        sent = Sent(line, right.epoch, right.owner, asyncio.get_running_loop().time())
        if right.owner == self._owner and not right.fenced and self._has_result(sent):
            raise Broken(f"{line} was sent again, though its result is here")
        self._in_flight.add(sent)
        self._check_bound()
        if calm_since is not None:
            self._check_calm(sent, calm_since, now)
        return sent

    def died_of(self, line: Line) -> None:
        """Record that a line has killed this processor.

        Raises:
            Broken: its shard has killed as many before as the promise allows.
        """
        self._account.died_of(*line)

    def land(self, sent: Sent, *, final: bool) -> None:
        """Record that a line came back, with its result or without one."""
        self._in_flight.discard(sent)
        if final:
            now = asyncio.get_running_loop().time()
            self._landed[sent.line] = Sent(sent.line, sent.epoch, sent.owner, now)

    def _check_bound(self) -> None:
        self._landed = {line: sent for line, sent in self._landed.items() if self._waits(sent)}
        count = len(self._landed) + sum(1 for sent in self._in_flight if self._counts(sent))
        self.most = max(self.most, count)
        if count > self._lines_max:
            raise Broken(
                f"{self._owner} would repeat {count} lines if it died now; "
                f"its limits allow {self._lines_max}"
            )

    def _check_calm(self, sent: Sent, calm_since: float, now: float) -> None:
        """Hold the processor to its pace once nothing has gone wrong for a while."""
        landed = min((other.at for other in self._landed.values()), default=sent.at)
        if sent.at - max(landed, calm_since) > SETTLED_SECONDS:
            raise Broken(f"a result has waited for its commit since {landed}")
        job = self._account.jobs[sent.line[0]]
        if (
            sent.at - calm_since > SETTLED_SECONDS
            and now >= job.batch.expires_at + _CLOCK_GRAIN_SECONDS
        ):
            raise Broken(f"{sent.line} was sent after the window of its batch had closed")
        cancelled_at = job.cancelled_at
        if cancelled_at is not None and sent.at - max(cancelled_at, calm_since) > SETTLED_SECONDS:
            raise Broken(f"{sent.line} was sent long after its batch was cancelled")

    def _has_result(self, sent: Sent) -> bool:
        landed = self._landed.get(sent.line)
        if landed is not None and self._waits(landed):
            return True
        return sent.line[1] in self._account.recorded[sent.line[0]]

    def _waits(self, landed: Sent) -> bool:
        """Return whether a result is kept for its commit: not if one was refused already."""
        return self._counts(landed) and not self._right(landed.line).refused

    def _counts(self, sent: Sent) -> bool:
        """Return whether a crash would repeat the line: the claim stands, no result is recorded."""
        batch_id, name = sent.line
        if name in self._account.recorded[batch_id]:
            return False
        right = self._right(sent.line)
        same = (right.epoch, right.owner) == (sent.epoch, sent.owner)
        return same and right.owner == self._owner and not right.fenced

    def _right(self, line: Line) -> WriteGrant:
        batch_id, name = line
        number = self._account.jobs[batch_id].shard_of[name]
        return self._account.right(Unit(batch_id=batch_id, kind=Kind.SHARD, number=number))


def worst(exposures: Mapping[str, Exposure]) -> int:
    """Return the most lines that any one crash would have repeated."""
    return max((exposure.most for exposure in exposures.values()), default=0)
