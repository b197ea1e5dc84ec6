"""The events that a processor reports. Telemetry counts and logs them."""

# ruff: noqa: ARG002 -- a method that is not overridden ignores its arguments

from typing import Protocol

from tidegate.domain.batch import Batch
from tidegate.domain.errors import BlobMissing, SandboxDied, SandboxNotStarted, TidegateError
from tidegate.domain.usage import Usage


class Observer(Protocol):
    """Is called on the event loop; every method returns immediately and never raises.

    A subclass may override only the methods that it needs.
    """

    def on_attempts(self, endpoint: str, outcome: str, count: int) -> None:
        """Calls to an endpoint ended; `outcome` is the value of an `AttemptOutcome`."""
        return

    def on_claim(self, kind: str) -> None:
        """A claim on a planning, a shard or a finalizing was taken."""
        return

    def on_claim_lost(self, kind: str) -> None:
        """A claim went to another holder while it was being worked on."""
        return

    def on_lines_done(self, model: str, completed: int, failed: int, usage: Usage) -> None:
        """Lines of one model were committed."""
        return

    def on_lines_repeated(self, count: int) -> None:
        """Replies came back for lines that another processor holds now and runs again."""
        return

    def on_commit(self, lines: int, seconds: float) -> None:
        """The ledger answered a commit."""
        return

    def on_planned(self, batch: Batch, seconds: float) -> None:
        """A batch was validated and planned, or ended by its validation."""
        return

    def on_planning_sandboxed(self, batch_id: str) -> None:
        """A batch is being planned in a child process, because processors died of planning it."""
        return

    def on_planning_death(self, batch_id: str, place: str, death: SandboxDied) -> None:
        """A child process died while it planned a batch; `place` is the step that it was doing."""
        return

    def on_plan_missing(self, batch: Batch) -> None:
        """A shard was claimed whose plan can't be read."""
        return

    def on_input_missing(self, batch: Batch, error: BlobMissing) -> None:
        """A batch can't be planned, because bytes of its input are gone or can't be read."""
        return

    def on_batch_ended(self, batch: Batch) -> None:
        """A batch reached a terminal status here."""
        return

    def on_store_unavailable(self, error: TidegateError) -> None:
        """The ledger did not answer; work waits and asks again."""
        return

    def on_disk_full(self, reason: str | None) -> None:
        """A write found no room, for this reason; None if there is room again."""
        return

    def on_upstream_crash(self, error: Exception) -> None:
        """A call to an upstream raised an error other than `UpstreamFault`."""
        return

    def on_shard_quarantined(self, batch_id: str, shard: int) -> None:
        """A shard was opened in quarantine: its lines run one at a time in a child process."""
        return

    def on_line_sandboxed(self) -> None:
        """A line was sent through a sandbox."""
        return

    def on_sandbox_death(self, batch_id: str, line: int, death: SandboxDied) -> None:
        """A child process died while it carried the line of this number."""
        return

    def on_sandbox_not_started(self, error: SandboxNotStarted) -> None:
        """A child process could not be started; its shard waits."""
        return

    def on_poison_line(self, batch_id: str, line: int) -> None:
        """A line failed because too many child processes died of it."""
        return

    def on_quarantine_size(self, shards: int) -> None:
        """This many shards are open in quarantine now; called like `on_load`."""
        return

    def on_load(self, *, in_flight: int, open_shards: int, uncommitted: int) -> None:
        """The current load; called at least once for each poll interval."""
        return

    def on_endpoint_state(
        self, name: str, *, limit: int, in_flight: int, reason: str | None
    ) -> None:
        """The state of one endpoint, and why it is paused; called like `on_load`."""
        return


class NullObserver(Observer):
    """Ignores everything."""
