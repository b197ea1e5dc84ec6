"""Everything that this processor holds open: its batches by id, in turn."""

from collections import deque
from collections.abc import Callable

from tidegate.domain.batch import Batch
from tidegate.processor.open_shard import OpenShard
from tidegate.processor.run import Budget, Run
from tidegate.processor.storage import Storage


class Held:
    """The open batches. `on_new` starts the committer of a batch that was just opened."""

    def __init__(self, budget: Budget, storage: Storage) -> None:
        self.budget = budget
        self.storage = storage
        self.runs: dict[str, Run] = {}
        self.turn: deque[Run] = deque()
        self.on_new: Callable[[Run], None] | None = None

    @property
    def open_shards(self) -> int:
        """Count the open shards of all batches."""
        return sum(len(run.shards) for run in self.runs.values())

    def open(self, batch: Batch, shard: OpenShard) -> Run:
        """Take in a shard, and its batch if it is the first of it."""
        run = self.runs.get(batch.id)
        if run is not None:
            if batch.version > run.batch.version:
                run.batch = batch
            run.open(shard)
            return run
        run = Run(batch, self.budget, noted_reason=batch.waiting_for)
        run.open(shard)
        self.runs[batch.id] = run
        self.turn.append(run)
        assert self.on_new is not None, "the service has not started"
        self.on_new(run)
        return run

    def drop(self, run: Run) -> None:
        """Let go of a batch of which nothing is open and nothing uncommitted any more."""
        assert not run.shards, run.id
        assert not run.entries, run.id
        del self.runs[run.id]
        self.turn.remove(run)
