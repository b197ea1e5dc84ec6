"""The events that a collector reports. Telemetry counts and logs them."""

# ruff: noqa: ARG002 -- a method that is not overridden ignores its arguments

from collections.abc import Sequence
from typing import Protocol

from tidegate.domain.errors import TidegateError


class Observer(Protocol):
    """Is called on the event loop; every method returns immediately and never raises.

    A subclass may override only the methods that it needs.
    """

    def on_files_released(self, files: int) -> None:
        """The bytes of deleted or expired files were released."""
        return

    def on_batches_removed(self, batches: int) -> None:
        """Batches that ended long ago were removed."""
        return

    def on_blobs_deleted(self, blobs: int, size: int) -> None:
        """Unneeded blobs were deleted, `size` bytes in all."""
        return

    def on_file_compacted(self, file_id: str, before: int, after: int) -> None:
        """A file consists of fewer parts now."""
        return

    def on_unknown_blob(self, name: str) -> None:
        """A blob has an unknown name; it is not deleted."""
        return

    def on_blob_damaged(
        self, blob: str, *, needed: int, found: int | None, batches: tuple[str, ...]
    ) -> None:
        """A blob holds fewer bytes than the ledger needs; `found` is None if it can't be read."""
        return

    def on_drift(self, blobs: int) -> None:
        """A pass over all blobs found this many damages that could not be repaired."""
        return

    def on_lines_rerun(self, batch_id: str, lines: int) -> None:
        """Lines of a batch run again, because their results were gone."""
        return

    def on_batches_overdue(self, batch_ids: Sequence[str]) -> None:
        """Batches have to be ended, no processor is alive, and they could not be ended here."""
        return

    def on_interrupted(self, error: TidegateError) -> None:
        """The ledger or a disk did not answer; the next round tries again."""
        return

    def on_round_done(self, *, files: int, batches: int, blobs: int, size: int) -> None:
        """A round ended, with these numbers of released files, removed batches, deleted blobs."""
        return


class NullObserver(Observer):
    """Ignores everything."""
