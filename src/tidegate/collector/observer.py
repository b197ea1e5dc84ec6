"""What a collector tells of itself while it works; telemetry listens, a simulation need not."""

from collections.abc import Sequence

from tidegate.collector.report import Damage, Report
from tidegate.domain.errors import TidegateError


class Observer:
    """Hears of everything and keeps nothing. Telemetry overrides what it counts.

    Every method is called on the event loop, returns at once and never raises.
    """

    def released(self, files: int, size: int) -> None:
        """Files that nobody can see were let go, with so many bytes."""

    def dropped(self, batches: int) -> None:
        """Batches that ended long ago were removed."""

    def deleted(self, blobs: int, size: int) -> None:
        """Blobs that nobody needs were deleted, with so many bytes."""

    def compacted(self, file_id: str, before: int, after: int) -> None:
        """A file consists of fewer parts now."""

    def strange(self, name: str) -> None:
        """A blob has a name that is none of ours; it stays."""

    def damaged(self, damage: Damage) -> None:
        """A blob holds fewer bytes than the ledger needs of it."""

    def drift(self, blobs: int) -> None:
        """So many damages were found by a pass over all blobs, and not mended."""

    def mended(self, batch_id: str, lines: int) -> None:
        """Lines of a batch run again, because their results were gone."""

    def overdue(self, batch_ids: Sequence[str]) -> None:
        """Batches have to be ended, no processor is alive, and it could not be done here."""

    def held_up(self, error: TidegateError) -> None:
        """The ledger or a disk did not answer; the next round tries again."""

    def round_done(self, report: Report) -> None:
        """A round has ended."""
