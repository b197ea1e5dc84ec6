"""The batches of which this processor holds shards, with the results that wait for a commit."""

import asyncio
import math
from collections import deque
from dataclasses import dataclass, field

from tidegate.domain.batch import Batch, Status
from tidegate.domain.claim import Claim
from tidegate.domain.usage import NO_USAGE, Usage
from tidegate.processor.dispatch.open_shard import ENDING, LOST, RUNNING, OpenShard, OpenShardState
from tidegate.processor.observer import Observer
from tidegate.processor.settings import Commits
from tidegate.processor.wakeups import Wakeups
from tidegate.processor.write_gate import WriteGate
from tidegate.wire.results import error_line

CANCELLED = ("batch_cancelled", "This request was not executed because the batch was cancelled.")
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


# A commit begins when waiting lines reach this share of their limit. The rest is room for lines
# that come back while it is written; without it, nothing could be sent until the commit is done.
# Lines being written do not count as waiting, or other batches would commit line by line meanwhile.
COMMIT_DUE_SHARE = 0.75


@dataclass(slots=True)
class Budget:
    """Bounds the bytes in flight or uncommitted, and the uncommitted lines, of one processor.

    `lines_committing` counts the lines in commits that are being written. Each commit reports room
    to `wakeups`.
    """

    bytes_max: int
    lines_max: int
    wakeups: Wakeups
    bytes_held: int = 0
    lines_held: int = 0
    lines_committing: int = 0

    @property
    def is_full_of_lines(self) -> bool:
        """Whether no line may start, because too many wait for their commit."""
        return self.lines_held >= self.lines_max

    @property
    def is_commit_due(self) -> bool:
        """Whether enough lines wait for a commit to begin."""
        return self.lines_held - self.lines_committing >= self.lines_max * COMMIT_DUE_SHARE

    def release(self, lines: int, size: int) -> None:
        """Release the lines and bytes of a commit that has been answered."""
        self.lines_held -= lines
        self.lines_committing -= lines
        self.bytes_held -= size
        self.wakeups.report_room()

    def has_room_for(self, size: int) -> bool:
        """Return whether a line of this size may start; one larger than the bound runs alone."""
        if self.is_full_of_lines:
            return False
        return self.bytes_held + size <= self.bytes_max or self.bytes_held == 0


@dataclass(slots=True, eq=False)
class OpenBatch:
    """One batch that this processor works on.

    `batching` is set while the committer gathers results, to the bounds of one commit. `ends_at` is
    the deadline in seconds of the event loop: no line is sent after it, even if the batch is ended
    a little later.
    """

    batch: Batch
    budget: Budget
    results: list[ResultLine] = field(default_factory=list)
    results_bytes: int = 0
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
        """The batch's id."""
        return self.batch.id

    @property
    def is_idle(self) -> bool:
        """Whether no result is expected soon: no line is in flight or ready to be sent."""
        return not self.in_flight and not any(
            shard.fresh and shard.state is RUNNING for shard in self.shards.values()
        )

    def wake_committer_if_due(self) -> None:
        """Wake the committer if there is something for it to do now.

        Called after each line, most of which do not make a commit due.
        """
        batching = self.batching
        if batching is None or self.is_commit_due(batching) or self.is_idle:
            self.changed.set()

    def is_commit_due(self, commits: Commits) -> bool:
        """Return whether there are enough results for a commit, of this batch or of all batches."""
        return (
            self.budget.is_commit_due
            or len(self.results) >= commits.lines_max
            or self.results_bytes >= commits.bytes_max
        )

    def update_deadline(self, now: float) -> None:
        """Set the deadline; `now` is the ledger's time in Unix seconds."""
        self.ends_at = asyncio.get_running_loop().time() + self.batch.expires_at - now

    def open(self, shard: OpenShard) -> None:
        """Add a shard. Shards of one model run one after the other, models concurrently."""
        assert shard.number not in self.shards, shard.claim
        self.shards[shard.number] = shard
        if shard.model not in self.by_model:
            self.turn.append(shard.model)
        self.by_model.setdefault(shard.model, []).append(shard)

    def close(self, shard: OpenShard, state: OpenShardState) -> None:
        """Remove a shard, set its final state, and cancel its attempts."""
        shard.state = state
        if self.shards.get(shard.number) is shard:
            del self.shards[shard.number]
            self.by_model[shard.model].remove(shard)
            if not self.by_model[shard.model]:
                del self.by_model[shard.model]
                self.turn.remove(shard.model)
        shard.cancel_attempts_at(asyncio.get_running_loop().time())
        self.changed.set()

    def add(self, entry: ResultLine) -> None:
        """Add a result; it counts against the budget until its commit is answered."""
        entry.shard.decide(entry.index)
        self.results.append(entry)
        self.results_bytes += len(entry.line)
        self.budget.bytes_held += len(entry.line)
        self.budget.lines_held += 1
        self.wake_committer_if_due()

    def fresh(self, model: str) -> int:
        """Return how many lines of a model could be sent now, not counting quarantined shards."""
        return sum(
            shard.fresh
            for shard in self.by_model.get(model, ())
            if shard.state is RUNNING and not shard.is_quarantined
        )

    @property
    def all_fresh(self) -> int:
        """How many lines of all models could be sent now."""
        return sum(self.fresh(model) for model in self.by_model)

    def add_end_lines(self, shard: OpenShard) -> None:
        """Give every line without a result its end line."""
        assert shard.state is ENDING, shard.state
        assert not shard.in_flight, "a line in flight may still get its result"
        code, message = CANCELLED if self.batch.status is Status.CANCELLING else EXPIRED
        is_expired = code == EXPIRED[0]
        for index in sorted(shard.undecided):
            self.add_error(shard, index, code=code, message=message, is_expired=is_expired)

    def add_error(
        self, shard: OpenShard, index: int, *, code: str, message: str, is_expired: bool = False
    ) -> None:
        """Give a line an error that did not come from a reply."""
        line = shard.lines[index]
        text = error_line(self.request_id(line.number), line.custom_id, code=code, message=message)
        self.add(ResultLine(shard, index, text, is_error=True, is_expired=is_expired))

    def request_id(self, number: int) -> str:
        """Return the id of a request: the same on every attempt, in every processor."""
        return f"{self._request_prefix}{number}"


class OpenBatches:
    """The open batches by id and in turn, and their common bounds."""

    def __init__(self, budget: Budget, gate: WriteGate, observer: Observer) -> None:
        self.budget = budget
        self.gate = gate
        self._observer = observer
        self.by_id: dict[str, OpenBatch] = {}
        self.turn: deque[OpenBatch] = deque()

    @property
    def open_shards(self) -> int:
        """How many shards of all batches are open."""
        return sum(len(open_batch.shards) for open_batch in self.by_id.values())

    def open(self, batch: Batch, shard: OpenShard) -> OpenBatch:
        """Add a shard, and its batch if that is not open yet."""
        open_batch = self.by_id.get(batch.id)
        if open_batch is not None:
            if batch.version > open_batch.batch.version:
                open_batch.batch = batch
            open_batch.open(shard)
            return open_batch
        open_batch = OpenBatch(batch, self.budget, noted_reason=batch.waiting_for)
        open_batch.open(shard)
        self.by_id[batch.id] = open_batch
        self.turn.append(open_batch)
        return open_batch

    def lose(self, claim: Claim) -> None:
        """Close a shard that another processor holds now; nothing happens if it is not open."""
        open_batch, shard = self._find(claim)
        if open_batch is not None and shard is not None and shard.claim == claim:
            self._observer.on_claim_lost("shard")
            open_batch.close(shard, LOST)

    def supersede(self, claim: Claim) -> None:
        """Close a shard whose claim expired and was just granted to this processor again.

        Its attempts no longer count: more of them would only repeat lines.
        """
        open_batch, shard = self._find(claim)
        if open_batch is not None and shard is not None:
            open_batch.close(shard, LOST)

    def _find(self, claim: Claim) -> tuple[OpenBatch | None, OpenShard | None]:
        open_batch = self.by_id.get(claim.unit.batch_id)
        return open_batch, open_batch.shards.get(claim.unit.number) if open_batch else None

    def drop(self, open_batch: OpenBatch) -> None:
        """Remove a batch without open shards or uncommitted results."""
        assert not open_batch.shards, open_batch.id
        assert not open_batch.results, open_batch.id
        del self.by_id[open_batch.id]
        self.turn.remove(open_batch)
