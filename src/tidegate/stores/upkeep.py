"""What a ledger promises to the collector, to quarantine, and to processors that share limits.

It is part of the promise of `tidegate.stores.base`, whose rules hold here as well: each method is
one atomic transaction, judged by the ledger's own clock, and may be repeated after an unknown
outcome; one that removes rows then counts what was left to remove. The verbs that only look
(`list_…`, `get_…`, `unreferenced`) are what a dry run uses.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from tidegate.domain.batch import Batch
from tidegate.domain.claim import Claim
from tidegate.domain.file import Part
from tidegate.domain.shard import Shard, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedFile:
    """A file that nobody can see and no live batch holds, whose bytes are still kept.

    `why` is "deleted" or "expired".
    """

    file_id: str
    tenant: str
    bytes: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OldBatch:
    """A batch that has been terminal since `ended_at` (Unix seconds)."""

    batch_id: str
    tenant: str
    ended_at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragmented:
    """A visible file with many parts."""

    file_id: str
    tenant: str
    parts: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A blob that rows point to, and how many bytes of it they need at least."""

    blob: str
    bytes_needed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """How many rows that nobody can ask for any more were removed."""

    files: int = 0
    uploads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRepair:
    """New done bits for one shard; refused unless its epoch and sequence are still these."""

    number: int
    epoch: int
    sequence: int
    done: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRepair:
    """What a file of the batch consisted of, and what is left of it."""

    file_id: str
    old: tuple[Part, ...]
    new: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Lines of a running batch whose results are gone, so that they run again (PROTOCOL 19).

    `lost` is what these lines had added to the counts and usage.
    """

    batch_id: str
    shards: tuple[ShardRepair, ...]
    files: tuple[FileRepair, ...]
    lost: Tally = field(default_factory=Tally)


class Upkeep(ABC):
    """The part of a ledger that keeps it clean and its processors fair."""

    # Who is alive

    @abstractmethod
    async def beat(self, owner: str, *, lease_seconds: float) -> None:
        """Count this processor among the living until `lease_seconds` from now."""

    @abstractmethod
    async def leave(self, owner: str) -> None:
        """Count this processor no more. One that is not counted is no error."""

    @abstractmethod
    async def get_living(self) -> tuple[str, ...]:
        """Return the living processors, sorted."""

    # Who writes results

    @abstractmethod
    async def begin_writer(self, writer: str, *, batch_id: str, owner: str, at: float) -> None:
        """Record that a processor is about to write result blobs under this writer's name.

        A commit under a writer that was never begun, or that was fenced since, is refused as
        stale: its bytes may be gone. A repeat changes nothing, also for a fenced writer. Nothing is
        recorded for a batch that is gone.
        """

    # Poison (PROTOCOL 20)

    @abstractmethod
    async def record_suspect(self, claim: Claim, index: int) -> None:
        """Record the line of a shard that is about to be sent alone.

        Raises:
            ClaimLost: the shard has a higher epoch, or has ended.
        """

    @abstractmethod
    async def record_death(self, claim: Claim, index: int) -> int:
        """Record that a child process died of the line recorded last; return its deaths so far.

        The line is recorded no more after it, so that a repeat only returns the number.

        Raises:
            ClaimLost: the shard has a higher epoch, or has ended.
        """

    # Files and batches that have had their time

    @abstractmethod
    async def list_unused_files(self, *, limit: int) -> list[UnusedFile]:
        """Return files that are deleted or expired, held by no live batch, and not yet released."""

    @abstractmethod
    async def release_files(self, file_ids: Sequence[str], *, keep_seconds: float) -> list[str]:
        """Let go of the bytes of those that are still unused; return their ids.

        Those that were released before are among them. Their blobs are retained for
        `keep_seconds` from now for whoever is reading them, or longer where that was asked for.
        What is left of a file is a row without parts that marks its place in lists.
        """

    @abstractmethod
    async def list_ending(self, *, limit: int) -> list[Batch]:
        """Return batches of which no line may run any more, and that are not terminal.

        These are being cancelled or finalized, or their window has closed. The oldest come first.
        """

    @abstractmethod
    async def list_old_batches(self, *, ended_seconds: float, limit: int) -> list[OldBatch]:
        """Return batches that have been terminal for at least so long, the oldest first."""

    @abstractmethod
    async def drop_batches(self, batch_ids: Sequence[str]) -> int:
        """Remove terminal batches with their shards, units and writers; return how many.

        Their result files stay as long as these live by themselves.
        """

    @abstractmethod
    async def purge(self, *, age_seconds: float, limit: int) -> Purged:
        """Remove rows of released files, and of uploads that are over and name no file.

        An upload is over when it was abandoned, or when the file that it became is purged. Only
        rows that are at least so old go, and a file only together with its uploads. At
        most `limit` files go at once, and at most `limit` abandoned uploads.
        """

    # Garbage (PROTOCOL 18)

    @abstractmethod
    async def unreferenced(self, names: Sequence[str]) -> list[str]:
        """Return those of these blobs that no row needs and that are not retained for readers.

        Whoever writes one of them may still be about to commit it: nothing may be deleted on
        this answer. A plan is needed while its batch is not terminal.
        """

    @abstractmethod
    async def condemn(self, names: Sequence[str], *, idle_seconds: float) -> list[str]:
        """Fence whoever could still make a row that points to these blobs; return what may go.

        Of the unreferenced ones: the blob of an upload once that is finished or abandoned (one
        pending for at least `idle_seconds` is abandoned here); a plan once its epoch is superseded
        or its planning has ended (an expired claim's epoch is raised here); results once their
        writer can commit no more: it was fenced before, its batch is gone or has no open shard,
        or it is fenced here because its owner holds no live claim of the batch (the epochs of
        its expired claims are raised here, which counts as lost by a crash). An upload or writer
        that was never begun can't begin any more. A name that is none of ours never goes.
        """

    @abstractmethod
    async def list_retained(self, *, limit: int) -> list[str]:
        """Return blobs that were retained for readers and whose time is over."""

    @abstractmethod
    async def forget_retained(self, names: Sequence[str]) -> None:
        """Remember these blobs no more: they are deleted, or are needed again."""

    # Compaction (PROTOCOL 12)

    @abstractmethod
    async def list_fragmented(self, *, parts_min: int, limit: int) -> list[Fragmented]:
        """Return visible files of at least so many parts, those with the most first."""

    @abstractmethod
    async def swap_parts(
        self,
        upload_id: str,
        file_id: str,
        *,
        old: Sequence[Part],
        new: Sequence[Part],
        keep_seconds: float,
    ) -> bool:
        """Replace the first parts of a file by others of the same bytes; finish the upload.

        False, and nothing changes, where the file's parts don't begin with `old`, the file is
        hidden, or the upload is not pending. Each new part lies in the upload's blob or in one of
        `old`. The blobs that no row needs after it are retained
        for `keep_seconds` from now. A repeat of what was done answers True.
        """

    # Drift (PROTOCOL 19)

    @abstractmethod
    async def list_references(self, *, after: str, limit: int) -> list[Reference]:
        """Return referenced blobs with a name above `after`, sorted by name.

        These are the blobs of the parts of all files, and the plans of live batches.
        """

    @abstractmethod
    async def list_batches_of(self, blob: str) -> list[Batch]:
        """Return the batches whose result files or plan need this blob, by id."""

    @abstractmethod
    async def get_shards(self, batch_id: str) -> list[Shard]:
        """Return the shards of a batch by number; none for one that is unknown."""

    @abstractmethod
    async def repair(self, repair: Repair) -> bool:
        """Make lines of a batch run again whose results are gone.

        Each shard gets its new bits, is open again, and has its epoch raised, so that whoever
        held it writes no more (where another owner takes an open shard after it, that counts as
        lost by a crash); the counts and usage go down, and the files lose the parts. Writers
        whose bytes are gone are fenced, so that nothing is added to a blob that is lost.
        False, and nothing changes, where the batch has no open shard or one of the expectations
        no longer holds.
        """
