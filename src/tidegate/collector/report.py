"""What a duty did, or would do; reports of several duties add up."""

from dataclasses import dataclass

NAMES_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A blob that holds fewer bytes than the ledger needs of it.

    `found` is None where it is missing, or can't be read (then `readable` is False). `mended` says
    that the lost lines of its batch run again.
    """

    blob: str
    needed: int
    found: int | None
    readable: bool = True
    batches: tuple[str, ...] = ()
    mended: bool = False

    @property
    def sentence(self) -> str:
        """Say what is wrong in words."""
        state = f"has only {self.found}" if self.found is not None else "is missing"
        if not self.readable:
            state = "can't be read"
        owner = f", of {', '.join(self.batches)}" if self.batches else ""
        return f"'{self.blob}' {state} ({self.needed} bytes are needed{owner})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Counts, and up to `NAMES_MAX` examples of what a person may want to look at.

    `strangers` counts blobs whose names are none of ours, `drift` the damages that were not
    mended. `batches_ended` were ended here, as no processor lived; `batches_left` are left to those
    that live, and `overdue` could not be ended. `held_up` says why a duty could not be finished.
    """

    batches_ended: int = 0
    batches_left: int = 0
    files_released: int = 0
    bytes_released: int = 0
    batches_dropped: int = 0
    rows_purged: int = 0
    blobs_deleted: int = 0
    bytes_deleted: int = 0
    leftovers_removed: int = 0
    files_compacted: int = 0
    parts_merged: int = 0
    lines_rerun: int = 0
    strangers: int = 0
    drift: int = 0
    stranger_names: tuple[str, ...] = ()
    damages: tuple[Damage, ...] = ()
    overdue: tuple[str, ...] = ()
    held_up: tuple[str, ...] = ()

    def __add__(self, other: "Report") -> "Report":
        return Report(
            batches_ended=self.batches_ended + other.batches_ended,
            batches_left=self.batches_left + other.batches_left,
            files_released=self.files_released + other.files_released,
            bytes_released=self.bytes_released + other.bytes_released,
            batches_dropped=self.batches_dropped + other.batches_dropped,
            rows_purged=self.rows_purged + other.rows_purged,
            blobs_deleted=self.blobs_deleted + other.blobs_deleted,
            bytes_deleted=self.bytes_deleted + other.bytes_deleted,
            leftovers_removed=self.leftovers_removed + other.leftovers_removed,
            files_compacted=self.files_compacted + other.files_compacted,
            parts_merged=self.parts_merged + other.parts_merged,
            lines_rerun=self.lines_rerun + other.lines_rerun,
            strangers=self.strangers + other.strangers,
            drift=self.drift + other.drift,
            stranger_names=(self.stranger_names + other.stranger_names)[:NAMES_MAX],
            damages=(self.damages + other.damages)[:NAMES_MAX],
            overdue=(self.overdue + other.overdue)[:NAMES_MAX],
            held_up=(self.held_up + other.held_up)[:NAMES_MAX],
        )
