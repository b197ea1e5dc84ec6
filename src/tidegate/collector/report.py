"""What a duty did or would do; reports of several duties can be added."""

from dataclasses import dataclass

NAMES_MAX = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Damage:
    """A blob that holds fewer bytes than the ledger needs.

    `found` is None if it is missing, or can't be read (then `readable` is False). `repaired` means
    that the lost lines of its batch run again.
    """

    blob: str
    needed: int
    found: int | None
    readable: bool = True
    batches: tuple[str, ...] = ()
    repaired: bool = False

    @property
    def sentence(self) -> str:
        """The damage as text."""
        state = f"has only {self.found}" if self.found is not None else "is missing"
        if not self.readable:
            state = "can't be read"
        owner = f", of {', '.join(self.batches)}" if self.batches else ""
        return f"'{self.blob}' {state} ({self.needed} bytes are needed{owner})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Counts, and up to `NAMES_MAX` examples for people to look at.

    `unknown_blobs` counts blobs with unknown names, `drift` damages that were not repaired.
    `batches_ended` were ended here because no processor is alive, `batches_left` are left to live
    processors, and `overdue` could not be ended. `held_up` are the reasons for unfinished duties.
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
    unknown_blobs: int = 0
    drift: int = 0
    unknown_blob_names: tuple[str, ...] = ()
    damages: tuple[Damage, ...] = ()
    overdue: tuple[str, ...] = ()
    held_up: tuple[str, ...] = ()

    def __add__(self, other: "Report") -> "Report":
        sums = {name: getattr(self, name) + getattr(other, name) for name in self.__slots__}
        for name, total in sums.items():
            if isinstance(total, tuple):
                sums[name] = total[:NAMES_MAX]
        return Report(**sums)
