"""Runs suspected lines one at a time, each recorded first and sent in a sandbox (PROTOCOL 20).

A shard that was lost twice by a crash may hold a line that kills the process that handles it. In a
sandbox the line can only kill a child process, and the ledger counts how often it does.
"""

from collections.abc import Callable
from dataclasses import dataclass

from tidegate.domain.claim import Claim
from tidegate.domain.errors import ClaimLost, SandboxDied, SandboxNotStarted
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.processor.dispatch.open_batch import OpenBatch
from tidegate.processor.dispatch.open_shard import OpenShard, OpenShardState
from tidegate.processor.observer import Observer
from tidegate.processor.write_gate import WriteGate
from tidegate.sandbox.base import Sandbox
from tidegate.stores.base import Store
from tidegate.upstreams.base import Call, Reply

# When a shard or planning for which no sandbox is free may be claimed again.
SANDBOX_WAIT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class SandboxDeath:
    """A child process died of a line; `count` have died of it in all."""

    count: int


class Quarantine:
    """At most `sandboxes_max` sandboxes, one for each open shard in quarantine.

    `on_lost` is called with a claim that another processor holds by now.
    """

    def __init__(
        self,
        store: Store,
        gate: WriteGate,
        observer: Observer,
        *,
        sandboxes_max: int,
        on_lost: Callable[[Claim], None],
    ) -> None:
        self._store = store
        self._gate = gate
        self._observer = observer
        self._sandboxes_max = sandboxes_max
        self._sandboxes: dict[OpenShard, Sandbox] = {}
        self._on_lost = on_lost

    @property
    def room(self) -> int:
        """How many more shards get a sandbox."""
        return self._sandboxes_max - len(self._sandboxes)

    def admit(self, shard: OpenShard) -> None:
        """Open a sandbox for a shard; its child process starts with the first line."""
        assert self.room > 0, "more sandboxes than allowed"
        assert shard.is_quarantined, shard.number
        assert shard.endpoint is not None, "nowhere to send its lines to"
        self._sandboxes[shard] = shard.endpoint.open_sandbox()
        self._observer.on_shard_quarantined(shard.claim.unit.batch_id, shard.number)

    async def record(self, shard: OpenShard, index: int) -> bool:
        """Record the line that is about to be sent, and wait until the ledger has answered.

        Return False if another processor holds the shard now.
        """
        try:
            await self._gate.retry_until_answered(
                lambda: self._store.record_suspect(shard.claim, index)
            )
        except ClaimLost:
            self._on_lost(shard.claim)
            return False
        return True

    async def send(self, shard: OpenShard, call: Call) -> Reply | SandboxNotStarted:
        """Send a line that was recorded.

        Raises:
            SandboxDied: the line may have killed its child process; see `record_sandbox_death`.
            UpstreamFault: as from any upstream.
        """
        try:
            reply = await self._sandboxes[shard].send(call)
        except SandboxNotStarted as error:
            self._observer.on_sandbox_not_started(error)
            return error
        self._observer.on_line_sandboxed()
        return reply

    async def record_sandbox_death(
        self, shard: OpenShard, index: int, death: SandboxDied
    ) -> SandboxDeath | None:
        """Record that a child died of this line; None if another processor holds the shard now."""
        self._observer.on_line_sandboxed()
        self._observer.on_sandbox_death(shard.claim.unit.batch_id, shard.lines[index].number, death)
        try:
            count = await self._gate.retry_until_answered(
                lambda: self._store.record_sandbox_death(shard.claim, index)
            )
        except ClaimLost:
            self._on_lost(shard.claim)
            return None
        return SandboxDeath(count)

    def fail_poison_line(self, open_batch: OpenBatch, shard: OpenShard, index: int) -> None:
        """Give a line that killed its processes the error that ends it."""
        self._observer.on_poison_line(open_batch.id, shard.lines[index].number)
        open_batch.add_error(
            shard,
            index,
            code="processor_crashed",
            message=(
                f"The process that ran this request died of it {DEATHS_TO_BLAME} times; "
                "it is not tried again."
            ),
        )

    def fail_known_poison_lines(self, open_batch: OpenBatch, shard: OpenShard) -> None:
        """Fail the lines that killed enough processes of earlier holders of the shard."""
        for index in shard.poison_lines:
            self.fail_poison_line(open_batch, shard, index)

    async def tidy(self) -> None:
        """Close the sandboxes of shards that are no longer held here."""
        over = [
            shard
            for shard in self._sandboxes
            if shard.state in {OpenShardState.LOST, OpenShardState.CLOSED} and not shard.in_flight
        ]
        for shard in over:
            await self._sandboxes[shard].aclose()
            del self._sandboxes[shard]
        self._observer.on_quarantine_size(len(self._sandboxes))

    async def aclose(self) -> None:
        """Close every sandbox, so that no child process is left. May be called twice."""
        while self._sandboxes:
            _, sandbox = self._sandboxes.popitem()
            await sandbox.aclose()
