"""Everything that this processor holds open: its batches by id, in turn."""

from collections import deque

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim
from tidegate.processor.dispatch.open_batch import Budget, OpenBatch
from tidegate.processor.dispatch.open_shard import LOST, OpenShard
from tidegate.processor.observer import Observer
from tidegate.processor.write_gate import WriteGate


class OpenBatches:
    """The open batches, and the bounds on what they hold together."""

    def __init__(self, budget: Budget, storage: WriteGate, observer: Observer) -> None:
        self.budget = budget
        self.storage = storage
        self._observer = observer
        self.runs: dict[str, OpenBatch] = {}
        self.turn: deque[OpenBatch] = deque()

    @property
    def open_shards(self) -> int:
        """Count the open shards of all batches."""
        return sum(len(run.shards) for run in self.runs.values())

    def open(self, batch: Batch, shard: OpenShard) -> OpenBatch:
        """Take in a shard, and its batch if it is the first of it."""
        run = self.runs.get(batch.id)
        if run is not None:
            if batch.version > run.batch.version:
                run.batch = batch
            run.open(shard)
            return run
        run = OpenBatch(batch, self.budget, noted_reason=batch.waiting_for)
        run.open(shard)
        self.runs[batch.id] = run
        self.turn.append(run)
        return run

    def lose(self, claim: Claim) -> None:
        """Close a shard that another processor holds now; nothing happens if it is not open."""
        run = self.runs.get(claim.unit.batch_id)
        shard = run.shards.get(claim.unit.number) if run else None
        if run is not None and shard is not None and shard.claim == claim:
            self._observer.on_claim_lost("shard")
            run.close(shard, LOST)

    def drop(self, run: OpenBatch) -> None:
        """Let go of a batch of which nothing is open and nothing uncommitted any more."""
        assert not run.shards, run.id
        assert not run.entries, run.id
        del self.runs[run.id]
        self.turn.remove(run)
