"""A ledger in the memory of this process: for tests, simulations and trials.

Nothing survives the process. No method awaits, so each is atomic on one event loop. Opening and
closing change nothing: several simulated processes may share one store and outlive each other.
"""

from collections import Counter
from typing import Self

from typing_extensions import override

from tidegate.domain.batch import Batch
from tidegate.stores.health import OldestBatch, StoreHealth
from tidegate.stores.memory.batches import BatchVerbs
from tidegate.stores.memory.claims import ClaimVerbs
from tidegate.stores.memory.commits import CommitVerbs
from tidegate.stores.memory.files import FileVerbs
from tidegate.stores.memory.garbage import GarbageVerbs
from tidegate.stores.memory.members import MemberVerbs
from tidegate.stores.memory.quarantine import QuarantineVerbs
from tidegate.stores.memory.repair import RepairVerbs
from tidegate.stores.memory.retention import RetentionVerbs
from tidegate.stores.memory.tables import place


class MemoryStore(
    FileVerbs,
    BatchVerbs,
    ClaimVerbs,
    CommitVerbs,
    MemberVerbs,
    QuarantineVerbs,
    RetentionVerbs,
    GarbageVerbs,
    RepairVerbs,
):
    """A ledger that ends with the process."""

    @property
    @override
    def durable(self) -> bool:
        return False

    @override
    async def __aenter__(self) -> Self:
        return self

    @override
    async def __aexit__(self, *_: object) -> None:
        pass

    @override
    async def check(self) -> None:
        pass

    @override
    async def health(self) -> StoreHealth:
        now = self._clock.now()
        live = [job.batch for job in self._live.values()]
        oldest = min(live, key=place, default=None)
        return StoreHealth(
            engine="memory",
            durable=False,
            schema=1,
            schema_known=1,
            members=len(await self.list_members()),
            batches=Counter(job.batch.status.value for job in self._jobs.values()),
            oldest=None if oldest is None else _oldest(oldest),
            overdue=sum(batch.expires_at <= now for batch in live),
        )


def _oldest(batch: Batch) -> OldestBatch:
    """Return what an operator is shown of a batch."""
    return OldestBatch(
        batch_id=batch.id,
        status=batch.status.value,
        created_at=batch.created_at,
        expires_at=batch.expires_at,
        waiting_for=batch.waiting_for,
    )
