"""Lines that run alone: recorded first, then sent through a cell (PROTOCOL 20).

A shard that was lost twice by a crash may hold a line that kills whatever handles it. Here such a
line can only kill a child process, and the ledger counts how often.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tidegate.domain.claim import Claim
from tidegate.domain.errors import ClaimLost, SandboxDied, SandboxNotStarted
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.processor.dispatch.open_batch import OpenBatch
from tidegate.processor.dispatch.open_shard import OpenShard, OpenShardState
from tidegate.processor.observer import Observer
from tidegate.processor.retrying import retry_until_answered
from tidegate.processor.write_gate import WriteGate
from tidegate.sandbox.base import Sandbox
from tidegate.stores.base import Store
from tidegate.upstreams.base import Call, Reply

T = TypeVar("T")

# When others may look again at a shard, or a planning, for which no cell is free.
SANDBOX_WAIT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class SandboxDeath:
    """A child process died of a line; so many have by now."""

    count: int


class Quarantine:
    """The cells of this processor: one for each open shard in quarantine, `cells_max` at most.

    `on_lost` is called with a claim that another processor holds by now.
    """

    def __init__(
        self,
        store: Store,
        rng: random.Random,
        storage: WriteGate,
        observer: Observer,
        *,
        cells_max: int,
        on_lost: Callable[[Claim], None],
    ) -> None:
        self._store = store
        self._rng = rng
        self._storage = storage
        self._observer = observer
        self._cells_max = cells_max
        self._cells: dict[OpenShard, Sandbox] = {}
        self._on_lost = on_lost

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        return await retry_until_answered(ask, self._rng, self._storage)

    @property
    def room(self) -> int:
        """Return how many more shards could be taken in."""
        return self._cells_max - len(self._cells)

    def admit(self, shard: OpenShard) -> None:
        """Give a shard its cell. Its child process starts with its first line."""
        assert self.room > 0, "more cells than allowed"
        assert shard.is_quarantined, shard.number
        assert shard.endpoint is not None, "nowhere to send its lines to"
        self._cells[shard] = shard.endpoint.open_sandbox()
        self._observer.on_shard_quarantined(shard.claim.unit.batch_id, shard.number)

    async def record(self, shard: OpenShard, index: int) -> bool:
        """Record the line that is about to be sent, however long the ledger takes to answer.

        False where the shard turned out to be another's.
        """
        try:
            await self._insist(lambda: self._store.record_suspect(shard.claim, index))
        except ClaimLost:
            self._on_lost(shard.claim)
            return False
        return True

    async def send(self, shard: OpenShard, call: Call) -> Reply | SandboxNotStarted:
        """Send a line that was recorded.

        Raises:
            CellDied: the line may have killed its child process: `record_sandbox_death` it.
            UpstreamFault: as from any upstream.
        """
        try:
            reply = await self._cells[shard].send(call)
        except SandboxNotStarted as error:
            self._observer.on_sandbox_not_started(error)
            return error
        self._observer.on_line_sandboxed()
        return reply

    async def record_sandbox_death(
        self, shard: OpenShard, index: int, death: SandboxDied
    ) -> SandboxDeath | None:
        """Record that a child died of this line; None where the shard is another's by now."""
        self._observer.on_line_sandboxed()
        self._observer.on_sandbox_death(shard.claim.unit.batch_id, shard.lines[index].number, death)
        try:
            count = await self._insist(lambda: self._store.record_sandbox_death(shard.claim, index))
        except ClaimLost:
            self._on_lost(shard.claim)
            return None
        return SandboxDeath(count)

    def fail_poison_line(self, run: OpenBatch, shard: OpenShard, index: int) -> None:
        """Give a line that killed its processes the error that ends it."""
        self._observer.on_poison_line(run.id, shard.lines[index].number)
        run.add_error(
            shard,
            index,
            code="processor_crashed",
            message=(
                f"The process that ran this request died of it {DEATHS_TO_BLAME} times; "
                "it is not tried again."
            ),
        )

    def fail_known_poison_lines(self, run: OpenBatch, shard: OpenShard) -> None:
        """Blame the lines that killed enough processes under earlier holders of the shard."""
        for index in shard.blamed:
            self.fail_poison_line(run, shard, index)

    async def tidy(self) -> None:
        """Close the cells of shards that are no longer held here."""
        over = [
            shard
            for shard in self._cells
            if shard.state in {OpenShardState.LOST, OpenShardState.CLOSED} and not shard.flights
        ]
        for shard in over:
            await self._cells[shard].aclose()
            del self._cells[shard]
        self._observer.on_quarantine_size(len(self._cells))

    async def aclose(self) -> None:
        """Close every cell: no child process is left. Twice is harmless."""
        while self._cells:
            _, cell = self._cells.popitem()
            await cell.aclose()
