"""Values that a ledger takes and returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from tidegate.domain.batch import Batch, Status
from tidegate.domain.claim import Claim
from tidegate.domain.file import Part
from tidegate.domain.shard import Shard, ShardPlan, Tally
from tidegate.domain.share import Offer

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list; `has_more` is true if anything follows its last item."""

    items: tuple[T, ...]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """The statuses of batches at the ledger's time `now` (Unix seconds)."""

    now: float
    by_id: Mapping[str, Status]


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What a processor needs when it looks for work, as of one instant of the ledger.

    Attributes:
        now: the ledger's time in Unix seconds.
        members: how many processors are alive.
        rank: the place of the asking owner among them, sorted by name; None if it is not a member.
        statuses: of those batches asked for that exist.
        offers: claimable shards, in the order of shares (PROTOCOL 4).
        planning_due: a planning could be claimed now.
        finalizing_due: a finalizing could be claimed now.
    """

    now: float
    members: int
    rank: int | None
    statuses: Mapping[str, Status]
    offers: tuple[Offer, ...]
    planning_due: bool
    finalizing_due: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedBatch:
    """A planning or finalizing claim, with the batch as it was when the claim was taken.

    `crashes` counts the claims on this unit that were lost by a crash before (PROTOCOL 20).
    """

    claim: Claim
    batch: Batch
    crashes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedShard:
    """A claim on one shard, with the shard (its epoch is the claim's)."""

    claim: Claim
    shard: Shard


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedShards:
    """Shards of one batch that were claimed together, with the batch at that moment."""

    batch: Batch
    shards: tuple[ClaimedShard, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """At most `limit` claimable shards of one model of one batch, lowest number first."""

    batch_id: str
    model: str
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The result of planning: the blob of the sorted lines, and its shards.

    `total` is the sum of the shards' lines; `output_file_id` and `error_file_id` are reserved for
    the files that commits will create.
    """

    blob: str
    shards: tuple[ShardPlan, ...]
    models: tuple[str, ...]
    total: int
    output_file_id: str
    error_file_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCommit:
    """The lines of one shard that a commit records: their indexes in the shard, and slices.

    `output` and `errors` are slices of the commit's blob that hold these lines' results and errors,
    or None if there are none of the kind.
    """

    number: int
    epoch: int
    sequence: int
    indexes: tuple[int, ...]
    output: Part | None
    errors: Part | None
    tally: Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Results that become true together, shards of one batch, under one segment id.

    Each shard is judged alone: a refused one adds nothing, and does not affect the others. All are
    stale if `writer`, under whose name the bytes were written, was fenced or never begun.
    """

    segment_id: str
    batch_id: str
    shards: tuple[ShardCommit, ...]
    at: float
    writer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedFile:
    """A file that users can't see and no live batch holds, whose bytes are still stored.

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
    """How many rows were removed that no request can reach."""

    files: int = 0
    uploads: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardRepair:
    """New done bits for one shard; refused if its epoch or sequence changed."""

    number: int
    epoch: int
    sequence: int
    done: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRepair:
    """The parts of a file before the repair, and after it."""

    file_id: str
    old: tuple[Part, ...]
    new: tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repair:
    """Lines of a running batch that run again because their results are gone (PROTOCOL 19).

    `lost` is what these lines had added to the counts and usage.
    """

    batch_id: str
    shards: tuple[ShardRepair, ...]
    files: tuple[FileRepair, ...]
    lost: Tally = field(default_factory=Tally)
