"""A batch of which this processor holds shards, and the results that wait for their commit."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field

from tidegate.domain.batch import Batch, Status
from tidegate.domain.usage import NO_USAGE, Usage
from tidegate.processor.dispatch.open_shard import ENDING, LOST, RUNNING, OpenShard, OpenShardState
from tidegate.processor.settings import Commits
from tidegate.processor.wakeups import Wakeups
from tidegate.wire.results import error_line

CANCELLED = (
    "batch_cancelled",
    "This request was not executed because the batch was cancelled.",
)
EXPIRED = (
    "batch_expired",
    "This request could not be executed before the completion window expired.",
)


class ResultLine:
    """One result line that is not yet committed: a result, or an error of any kind."""

    __slots__ = ("index", "is_error", "is_expired", "line", "shard", "usage")

    def __init__(
        self,
        shard: OpenShard,
        index: int,
        line: bytes,
        usage: Usage = NO_USAGE,
        *,
        is_error: bool,
        is_expired: bool = False,
    ) -> None:
        self.shard = shard
        self.index = index
        self.line = line
        self.usage = usage
        self.is_error = is_error
        self.is_expired = is_expired


# Of the lines that may wait for a commit, the part at which one begins. While it is written others
# come back: were there no room for them, nothing could be sent until it is done. What is being
# written waits no more: else, while one batch writes much, others would commit line by line.
GATHERED_PART = 0.75


@dataclass(slots=True)
class Budget:
    """Bytes and lines that this processor answers for: in flight, or not yet committed.

    `lines_cut` of the lines are in a commit that is being written. Each commit reports room
    to `wakeups`.
    """

    bytes_max: int
    lines_max: int
    wakeups: Wakeups
    bytes_held: int = 0
    lines_held: int = 0
    lines_cut: int = 0

    @property
    def is_full_of_lines(self) -> bool:
        """Say whether so many lines wait for their commit that none may start."""
        return self.lines_held >= self.lines_max

    @property
    def is_commit_due(self) -> bool:
        """Say whether so many lines wait that the next commit should not wait for more."""
        return self.lines_held - self.lines_cut >= self.lines_max * GATHERED_PART

    def committed(self, lines: int, size: int) -> None:
        """Answer no longer for so many results that were cut, and for their bytes."""
        self.lines_held -= lines
        self.lines_cut -= lines
        self.bytes_held -= size
        self.wakeups.report_room()

    def takes(self, size: int) -> bool:
        """Say whether a line of this size may start; one that is too large for ever runs alone."""
        if self.is_full_of_lines:
            return False
        return self.bytes_held + size <= self.bytes_max or self.bytes_held == 0


@dataclass(slots=True, eq=False)
class OpenBatch:
    """One batch as it is being worked on here.

    `batching` is set while the committer lets results gather, to what one commit may hold.
    Nothing of it is sent from `ends_at` on, its deadline in seconds of the event loop: whatever
    ends it may only come by a little later, or be held up.
    """

    batch: Batch
    budget: Budget
    entries: list[ResultLine] = field(default_factory=list)
    entries_bytes: int = 0
    shards: dict[int, OpenShard] = field(default_factory=dict)
    by_model: dict[str, list[OpenShard]] = field(default_factory=dict)
    turn: deque[str] = field(default_factory=deque)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    noted_reason: str | None = None
    finished: dict[str, int] = field(default_factory=dict)
    rate: dict[str, float] = field(default_factory=dict)
    ends_at: float = math.inf
    in_flight: int = 0
    batching: Commits | None = None
    _request_prefix: str = ""

    def __post_init__(self) -> None:
        self._request_prefix = f"batch_req_{self.batch.id.removeprefix('batch_')}_"

    @property
    def id(self) -> str:
        """Return the batch's id."""
        return self.batch.id

    @property
    def is_idle(self) -> bool:
        """Say whether no result can be expected at once: nothing flies, nothing is about to."""
        return not self.in_flight and not any(
            shard.fresh and shard.state is RUNNING for shard in self.shards.values()
        )

    def wake_committer_if_due(self) -> None:
        """Wake the committer if there is something for it to do now.

        Asked after each line: while results gather for the next commit, most change nothing.
        """
        batching = self.batching
        if batching is None or self.is_commit_due(batching) or self.is_idle:
            self.changed.set()

    def is_commit_due(self, commits: Commits) -> bool:
        """Say whether there are results enough for a commit: of its own, or of all batches here."""
        return (
            self.budget.is_commit_due
            or len(self.entries) >= commits.lines_max
            or self.entries_bytes >= commits.bytes_max
        )

    def update_deadline(self, now: float) -> None:
        """Learn when the batch ends, where `now` is the time in Unix seconds, by the ledger."""
        self.ends_at = asyncio.get_running_loop().time() + self.batch.expires_at - now

    def open(self, shard: OpenShard) -> None:
        """Take a shard in. Shards of one model go one after the other, models side by side."""
        earlier = self.shards.get(shard.number)
        if earlier is not None:
            # Our own claim had expired and we took it anew: what the old one sent no longer counts.
            self.close(earlier, LOST)
        self.shards[shard.number] = shard
        if shard.model not in self.by_model:
            self.turn.append(shard.model)
        self.by_model.setdefault(shard.model, []).append(shard)

    def close(self, shard: OpenShard, state: OpenShardState) -> None:
        """Let go of a shard, for whatever reason `state` says; its flights are cut."""
        shard.state = state
        if self.shards.get(shard.number) is shard:
            del self.shards[shard.number]
            self.by_model[shard.model].remove(shard)
            if not self.by_model[shard.model]:
                del self.by_model[shard.model]
                self.turn.remove(shard.model)
        shard.cut_flights(asyncio.get_running_loop().time())
        self.changed.set()

    def add(self, entry: ResultLine) -> None:
        """Take a result; it counts against the budget until its commit is answered."""
        entry.shard.decide(entry.index)
        self.entries.append(entry)
        self.entries_bytes += len(entry.line)
        self.budget.bytes_held += len(entry.line)
        self.budget.lines_held += 1
        self.wake_committer_if_due()

    def fresh(self, model: str) -> int:
        """Count the lines of a model that could be sent at once, beside those that run alone."""
        return sum(
            shard.fresh
            for shard in self.by_model.get(model, ())
            if shard.state is RUNNING and not shard.is_quarantined
        )

    @property
    def all_fresh(self) -> int:
        """Count the lines of all models that could be sent at once."""
        return sum(self.fresh(model) for model in self.by_model)

    def add_ends(self, shard: OpenShard) -> None:
        """Give every line without a result its end line."""
        assert shard.state is ENDING, shard.state
        assert not shard.flights, "a line in flight may still land"
        code, message = CANCELLED if self.batch.status is Status.CANCELLING else EXPIRED
        is_expired = code == EXPIRED[0]
        for index in sorted(shard.undecided):
            self.add_error(shard, index, code=code, message=message, is_expired=is_expired)

    def add_error(
        self, shard: OpenShard, index: int, *, code: str, message: str, is_expired: bool = False
    ) -> None:
        """Give a line an error that no HTTP reply stands behind."""
        line = shard.lines[index]
        text = error_line(self.request_id(line.number), line.custom_id, code=code, message=message)
        self.add(ResultLine(shard, index, text, is_error=True, is_expired=is_expired))

    def request_id(self, number: int) -> str:
        """Return the id of a request: the same on every attempt, by whatever processor."""
        return f"{self._request_prefix}{number}"
