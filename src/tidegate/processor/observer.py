"""What a processor tells of itself while it works; telemetry listens, a simulation need not."""

from tidegate.domain.batch import Batch
from tidegate.domain.errors import BlobMissing, CellDied, CellNotStarted, TidegateError
from tidegate.domain.usage import Usage


class Observer:
    """Hears of everything and keeps nothing. Telemetry overrides what it counts.

    Every method is called on the event loop, returns at once and never raises.
    """

    def attempts(self, endpoint: str, outcome: str, count: int) -> None:
        """So many calls ended: blamed on nobody, line, endpoint or unsure; or cut, or dropped."""

    def claimed(self, kind: str) -> None:
        """A claim on a planning, a shard or a finalizing was taken."""

    def claim_lost(self, kind: str) -> None:
        """A claim went to another holder while it was being worked on."""

    def lines_done(self, model: str, completed: int, failed: int, usage: Usage) -> None:
        """Lines of one model were committed."""

    def lines_repeated(self, count: int) -> None:
        """Lines came back whose shard another processor holds now: it runs them again."""

    def commit(self, lines: int, seconds: float) -> None:
        """The ledger answered a commit."""

    def planned(self, batch: Batch, seconds: float) -> None:
        """A batch was validated and planned, or ended by its validation."""

    def planned_alone(self, batch_id: str) -> None:
        """A batch is being planned in a child process, since processors died while they did."""

    def planning_died(self, batch_id: str, place: str, death: CellDied) -> None:
        """A child process died while it planned a batch; `place` says what it was doing."""

    def plan_missing(self, batch: Batch) -> None:
        """A shard was claimed whose plan can't be read."""

    def input_missing(self, batch: Batch, error: BlobMissing) -> None:
        """A batch can't be planned, because bytes of its input are gone or can't be read."""

    def batch_ended(self, batch: Batch) -> None:
        """A batch reached a terminal status here."""

    def held_up(self, error: TidegateError) -> None:
        """The ledger did not answer; work waits and asks again."""

    def storage(self, reason: str | None) -> None:
        """No room to write was found, for this reason; or there is room again."""

    def crashed(self, error: Exception) -> None:
        """A call to an upstream raised what no upstream should raise."""

    def quarantined(self, batch_id: str, shard: int) -> None:
        """A shard was opened in quarantine: its lines run one at a time in a child process."""

    def line_alone(self) -> None:
        """A line was sent through a cell."""

    def cell_died(self, batch_id: str, line: int, death: CellDied) -> None:
        """A child process died while it carried the line of this number."""

    def cell_not_started(self, error: CellNotStarted) -> None:
        """A child process could not be started; its shard waits."""

    def line_blamed(self, batch_id: str, line: int) -> None:
        """A line got its error for the child processes that died of it."""

    def in_quarantine(self, shards: int) -> None:
        """So many shards are open in quarantine now; called like `observe`."""

    def observe(self, *, in_flight: int, open_shards: int, uncommitted: int) -> None:
        """The valves as they stand now; called at least once for each poll interval."""

    def endpoint(self, name: str, *, limit: int, in_flight: int, reason: str | None) -> None:
        """One endpoint as it stands now, and why it is paused; called like `observe`."""
