"""The promise of every ledger.

A store writes what it is given: ids, times and choices are made above it, and what a commit or a
change of status means is decided by functions of `tidegate.domain` that every back-end calls. Each
method is one atomic transaction; when it returns, its effect survives power loss (as far as the
back-end says so by `durable`). When it raises `StoreUnavailable` the outcome is unknown: every
writing method may be repeated with the same arguments and then gives the first answer.

Claims are judged by the ledger's own clock. Nothing of one tenant is visible to another: methods
that serve users take the tenant, and answer `NotFound` for a stranger's id. A list of nothing is
an empty list; lists passed in may be empty.
"""

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar

from tidegate.domain.batch import Batch, Problem, Status
from tidegate.domain.claim import Claim, Unit
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.shard import Shard, ShardPlan, Tally, Verdict
from tidegate.domain.share import Offer
from tidegate.stores.health import StoreHealth
from tidegate.stores.upkeep import Upkeep

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list; `has_more` says whether anything follows its last item."""

    items: tuple[T, ...]
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class States:
    """How batches stood when the ledger's clock showed `now` (Unix seconds)."""

    now: float
    by_id: Mapping[str, Status]


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """What a processor asks when it looks for work, as of one instant of the ledger.

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
    """What planning found: where the lines lie in their order, and how they are cut.

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
    """The lines of one shard that a commit records: their indexes in the shard, and where they lie.

    `output` and `errors` are slices of the commit's blob that hold these lines' results and errors,
    or None where there are none of the kind.
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

    Each shard is judged alone: a refused one adds nothing, and does not hold up the others. All
    are stale where `writer`, under whose name the bytes lie, was fenced or never begun.
    """

    segment_id: str
    batch_id: str
    shards: tuple[ShardCommit, ...]
    at: float
    writer: str


class Store(Upkeep):
    """A ledger: these verbs and those of `Upkeep`.

    Open it with `async with`; closing it twice is harmless.
    """

    @property
    @abstractmethod
    def durable(self) -> bool:
        """Say whether what was acknowledged survives the end of the process and power loss."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open the ledger, creating or migrating it where needed."""

    @abstractmethod
    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""

    @abstractmethod
    async def check(self) -> None:
        """Prove that the ledger reads and writes.

        Raises:
            StoreUnavailable: it does not.
            StorageFull: it reads, but has no room to write.
        """

    @abstractmethod
    async def health(self) -> StoreHealth:
        """Return how the ledger stands, whether or not it is open. Nothing in it changes.

        Raises:
            StorageBroken: it is damaged, or no ledger of this back-end.
            StoreUnavailable: it can't be reached or read.
        """

    # Uploads and files

    @abstractmethod
    async def begin_upload(self, upload_id: str, *, tenant: str, blob: str, at: float) -> None:
        """Record that a blob is about to be written, so that it can be fenced if need be."""

    @abstractmethod
    async def finish_upload(self, upload_id: str, file: File, parts: Sequence[Part]) -> File:
        """Turn a pending upload into a file with these parts. A repeat returns the same file.

        Raises:
            ClaimLost: the upload was abandoned, or never begun.
        """

    @abstractmethod
    async def abandon_upload(self, upload_id: str) -> bool:
        """Fence a pending upload for good. Return False if it was finished before."""

    @abstractmethod
    async def get_file(self, tenant: str, file_id: str) -> File:
        """Return a visible file: not deleted, not past its expiry.

        Raises:
            NotFound: there is none.
        """

    @abstractmethod
    async def get_parts(self, tenant: str, file_id: str) -> tuple[File, tuple[Part, ...]]:
        """Return a visible file with its parts, as of one instant.

        Raises:
            NotFound: there is none.
        """

    @abstractmethod
    async def list_files(
        self,
        tenant: str,
        *,
        after: str | None,
        limit: int,
        ascending: bool,
        purpose: Purpose | None,
    ) -> Page[File]:
        """Return visible files by (created_at, id), newest first unless `ascending`.

        Raises:
            NotFound: `after` names no file of this tenant (a deleted one still marks its place).
        """

    @abstractmethod
    async def delete_file(self, tenant: str, file_id: str) -> None:
        """Hide a file at once. Its bytes stay until no live batch refers to it (PROTOCOL 7).

        Raises:
            NotFound: there is none.
            Conflict: a batch is still writing it.
        """

    # Batches

    @abstractmethod
    async def create_batch(self, batch: Batch) -> Batch:
        """Record a batch in `validating` and open its planning.

        Where the input file is visible the batch holds it from this transaction on. A batch of
        this tenant with the same idempotency key exists already: that one is returned and nothing
        is written. The same batch id: the first answer.
        """

    @abstractmethod
    async def get_batch(self, tenant: str, batch_id: str) -> Batch:
        """Return a batch.

        Raises:
            NotFound: there is none.
        """

    @abstractmethod
    async def list_batches(self, tenant: str, *, after: str | None, limit: int) -> Page[Batch]:
        """Return batches by (created_at, id), newest first.

        Raises:
            NotFound: `after` names no batch of this tenant.
        """

    @abstractmethod
    async def cancel_batch(self, tenant: str, batch_id: str, *, at: float) -> Batch:
        """Ask for the end of a batch, by `domain.batch.ask_cancel`.

        Raises:
            NotFound: there is none.
            Conflict: it is finalizing or has ended otherwise.
        """

    @abstractmethod
    async def get_states(self, batch_ids: Sequence[str]) -> States:
        """Return the status of each of these batches that exists, in order, whatever its tenant.

        With it comes the time by the ledger's clock, at a moment between question and answer.
        """

    @abstractmethod
    async def note_waiting(self, batch_id: str, reason: str | None) -> None:
        """Record in words why a batch does not get on, or None. Never changes version."""

    # Claims

    @abstractmethod
    async def claim_planning(
        self, owner: str, *, lease_seconds: float, ending_only: bool = False
    ) -> ClaimedBatch | None:
        """Claim the oldest batch whose planning is open and unclaimed or expired.

        With `ending_only` one that is cancelling or past `expires_at`, so that no plan is wanted.
        """

    @abstractmethod
    async def get_input(self, batch_id: str) -> tuple[Part, ...] | None:
        """Return the parts of the input that the batch holds.

        None if create found no file, and where the batch has ended and the bytes were released.
        """

    @abstractmethod
    async def poll(
        self,
        owner: str,
        *,
        offers_max: int,
        batch_ids: Sequence[str] = (),
        skip_models: Collection[str] = (),
        ending_only: bool = False,
    ) -> Poll:
        """Answer all that a processor asks when it looks for work. Reads, and writes nothing.

        There is one offer for each batch and model with claimable shards: at most `offers_max`, the
        first in the order of `domain.share.in_order`, without those of `skip_models`. With
        `ending_only` offers and plannings are those of batches that are cancelling or past
        `expires_at`. A shard is claimable if it has not ended, no live claim holds it, and the wait
        of its last hand-back is over or its batch is ending. The cost grows with the claims that
        are held and with `offers_max`, not with the open shards of the deployment.
        """

    @abstractmethod
    async def claim_shards(
        self, owner: str, wants: Sequence[Want], *, lease_seconds: float
    ) -> list[ClaimedShards]:
        """Claim what is still claimable of each wish, epoch + 1 each. Skip empty batches."""

    @abstractmethod
    async def claim_finalizing(self, owner: str, *, lease_seconds: float) -> ClaimedBatch | None:
        """Claim a batch whose last shard has ended and whose books nobody is closing."""

    @abstractmethod
    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Unit]:
        """Extend claims from now, also expired ones that nobody took; return those lost."""

    @abstractmethod
    async def hand_back(self, claims: Sequence[Claim], *, wait_seconds: float = 0.0) -> None:
        """Give up claims so that others may take them at once, or `wait_seconds` from now.

        The wait is counted by the ledger's clock, and the first one stands where a hand-back is
        repeated. Claims that were lost are passed over.
        """

    # What a holder writes

    @abstractmethod
    async def plan_batch(self, claim: Claim, plan: Plan, *, at: float) -> Batch:
        """Record plan, shards and totals and move the batch to `in_progress`, in one transaction.

        It waits for nothing any more.

        Raises:
            ClaimLost: the planning has a higher epoch, or the batch is no longer validating.
        """

    @abstractmethod
    async def end_unplanned(self, claim: Claim, *, problems: Sequence[Problem], at: float) -> Batch:
        """End a batch that never got a plan, with total 0 and no files.

        It becomes cancelled if cancelling, else failed if there are problems, else expired.

        Raises:
            ClaimLost: the planning has a higher epoch, or has ended in another way.
        """

    @abstractmethod
    async def commit(self, commit: Commit) -> list[Verdict]:
        """Record results (PROTOCOL 8), one verdict for each shard in the order given.

        Accepted shards set their bits, add to the counts by increment and append their parts
        (touching slices merge); a file is created with its first part. A shard whose last line is
        done ends; with the last shard the batch moves on and its finalizing opens.
        """

    @abstractmethod
    async def finish_batch(self, claim: Claim, *, at: float) -> Batch:
        """Make the batch terminal by `domain.batch.close` and its files final, in one transaction.

        The files get their expiry: `at` plus the batch's `output_expires_seconds`.

        Raises:
            ClaimLost: the finalizing has a higher epoch.
        """
