"""An independent account of what a ledger accepted: the invariants, checked at every step.

It knows the protocol in the plainest words, and shares no code with what it watches: a commit
counts only under the epoch that was granted last, and no line of a batch is ever recorded twice.
"""

from collections.abc import Sequence

from tidegate.domain.batch import NEXT, Batch, Status
from tidegate.domain.shard import Verdict
from tidegate.stores.base import ClaimedShards, Commit, ShardCommit


class Broken(AssertionError):
    """An invariant of the protocol does not hold."""


class Shadow:
    """What was granted, and what was recorded."""

    def __init__(self) -> None:
        self._epochs: dict[tuple[str, int], int] = {}
        self._recorded: dict[tuple[str, int, int], str] = {}
        self._segments: set[tuple[str, str, int]] = set()
        self._status: dict[str, Status] = {}
        self.repeats_refused = 0

    def granted(self, claimed: Sequence[ClaimedShards]) -> None:
        """Hear of claims that the ledger granted."""
        for batch in claimed:
            for held in batch.shards:
                key = (batch.batch.id, held.shard.plan.number)
                epoch = self._epochs.get(key, 0)
                if held.claim.epoch <= epoch:
                    raise Broken(f"{key} was granted under {held.claim.epoch} after {epoch}")
                self._epochs[key] = held.claim.epoch

    def committed(self, commit: Commit, verdicts: Sequence[Verdict]) -> None:
        """Hear of a commit and what the ledger said to it."""
        for part, verdict in zip(commit.shards, verdicts, strict=True):
            if verdict is Verdict.ACCEPTED:
                self._accepted(commit, part)
            else:
                self.repeats_refused += 1

    def _accepted(self, commit: Commit, part: ShardCommit) -> None:
        segment = (commit.batch_id, commit.segment_id, part.number)
        if segment in self._segments:
            return
        self._segments.add(segment)
        current = self._epochs.get((commit.batch_id, part.number))
        if part.epoch != current:
            raise Broken(
                f"shard {part.number} took a commit under epoch {part.epoch}, "
                f"though {current} was granted"
            )
        for index in part.indexes:
            line = (commit.batch_id, part.number, index)
            if line in self._recorded:
                raise Broken(f"line {line} was recorded twice")
            self._recorded[line] = commit.segment_id

    def saw(self, batch: Batch) -> None:
        """Hear of a batch as a user sees it."""
        before = self._status.get(batch.id, batch.status)
        if before is not batch.status and batch.status not in _reachable(before):
            raise Broken(f"{batch.id} went from {before} to {batch.status}")
        self._status[batch.id] = batch.status
        if batch.counts.completed + batch.counts.failed > batch.counts.total:
            raise Broken(f"{batch.id} counts more lines than it has: {batch.counts}")


def _reachable(status: Status) -> set[Status]:
    found: set[Status] = set()
    edge = set(NEXT[status])
    while edge:
        found |= edge
        edge = {following for near in edge for following in NEXT[near]} - found
    return found
