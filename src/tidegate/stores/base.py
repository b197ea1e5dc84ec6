"""The contract of every ledger.

A store writes what it is given: its callers make ids, times and choices, and the functions of
`tidegate.domain.ledger`, which every back-end calls, decide what a request changes. Each method is
one atomic transaction; when it returns, its effect survives power loss if the back-end is
`durable`. If it raises `StoreUnavailable`, the outcome is unknown: every writing method may be
repeated with the same arguments and then returns the first answer; a method that removes rows
counts what was left to remove. The reading methods (`list_...`, `get_...`) are what a dry run uses.

The ledger's own clock decides whether a claim has expired. Nothing of one tenant is visible to
another: methods that serve users take the tenant, and raise `NotFound` for an id of another tenant.
Lists that are passed in may be empty.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from types import TracebackType
from typing import Self

from tidegate.domain.batch import Batch, Problem
from tidegate.domain.claim import Claim, Unit
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.values import (
    ClaimedBatch,
    ClaimedShards,
    Commit,
    Fragmented,
    OldBatch,
    Page,
    Plan,
    Poll,
    Purged,
    Reference,
    Repair,
    States,
    UnusedFile,
    Want,
)
from tidegate.domain.shard import Shard, Verdict
from tidegate.stores.health import StoreHealth


class Store(ABC):
    """A ledger. Open it with `async with`; closing it twice is harmless."""

    @property
    @abstractmethod
    def durable(self) -> bool:
        """Return whether what was acknowledged survives the end of the process and power loss."""

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Open the ledger, creating or migrating it if needed."""

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
        """Return the state of the ledger, whether or not it is open. Nothing in it changes.

        Raises:
            StorageBroken: it is damaged, or no ledger of this back-end.
            StoreUnavailable: it can't be reached or read.
        """

    # Files

    @abstractmethod
    async def begin_upload(self, upload_id: str, *, tenant: str, blob: str, at: float) -> None:
        """Record that a blob is about to be written, so that it can be fenced later."""

    @abstractmethod
    async def finish_upload(self, upload_id: str, file: File, parts: Sequence[Part]) -> File:
        """Turn a pending upload into a file with these parts. A repeat returns the same file.

        Raises:
            ClaimLost: the upload was abandoned, or never begun.
        """

    @abstractmethod
    async def abandon_upload(self, upload_id: str) -> bool:
        """Fence a pending upload permanently. Return False if it was finished before."""

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
        """Hide a file. Its bytes stay until no live batch refers to it (PROTOCOL 7).

        Raises:
            NotFound: there is none.
            Conflict: a batch is still writing it.
        """

    @abstractmethod
    async def list_fragmented(self, *, parts_min: int, limit: int) -> list[Fragmented]:
        """Return visible files of at least `parts_min` parts, those with the most first."""

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

        Return False and change nothing if the file's parts don't begin with `old`, the file is
        hidden, or the upload is not pending. Each new part is a slice of the upload's blob or of
        one of `old`. Blobs that no row needs any longer are retained for `keep_seconds` from now.
        A repeat returns True.
        """

    # Batches

    @abstractmethod
    async def create_batch(self, batch: Batch) -> Batch:
        """Record a batch in `validating` and open its planning.

        If the input file is visible, the batch holds it from this transaction on. If this tenant
        has a batch with the same idempotency key, or the batch id exists, that batch is returned
        and nothing is written.
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
        """Return the status of each of these batches that exists, in order, of any tenant.

        `now` is the ledger's time at a moment during the call.
        """

    @abstractmethod
    async def note_waiting(self, batch_id: str, reason: str | None) -> None:
        """Record the reason why a batch makes no progress, or None. Never changes version."""

    @abstractmethod
    async def get_input(self, batch_id: str) -> tuple[Part, ...] | None:
        """Return the parts of the input that the batch holds.

        None if create found no file, or if the batch has ended and the bytes were released.
        """

    # Claims

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
        """Return all that a processor needs when it looks for work. Nothing is written.

        There is one offer for each batch and model with claimable shards: at most `offers_max`, the
        first in the order of `domain.share.in_order`, without those of `skip_models`. With
        `ending_only` offers and plannings are those of batches that are cancelling or past
        `expires_at`. A shard is claimable if it has not ended, no live claim holds it, and the wait
        of its last hand-back is over or its batch is ending. The cost grows with the claims that
        are held, with `offers_max`, and with the shards of earlier batches that have no offer.
        """

    @abstractmethod
    async def claim_planning(
        self, owner: str, *, lease_seconds: float, ending_only: bool = False
    ) -> ClaimedBatch | None:
        """Claim the oldest batch whose planning is open and unclaimed or expired.

        With `ending_only`, only one that is cancelling or past `expires_at`: it needs no plan.
        """

    @abstractmethod
    async def claim_shards(
        self, owner: str, wants: Sequence[Want], *, lease_seconds: float
    ) -> list[ClaimedShards]:
        """Claim what is still claimable of each want, epoch + 1 each. Omit batches with none."""

    @abstractmethod
    async def claim_finalizing(self, owner: str, *, lease_seconds: float) -> ClaimedBatch | None:
        """Claim a batch whose last shard has ended and whose finalizing nobody holds."""

    @abstractmethod
    async def renew(self, claims: Sequence[Claim], *, lease_seconds: float) -> list[Unit]:
        """Extend claims from now, also expired ones that nobody took; return the lost units."""

    @abstractmethod
    async def hand_back(self, claims: Sequence[Claim], *, wait_seconds: float = 0.0) -> None:
        """Give up claims so that others may take them immediately, or `wait_seconds` from now.

        The ledger's clock counts the wait, and a repeat does not extend it. Lost claims are
        skipped.
        """

    # Commits: what the holder of a claim writes

    @abstractmethod
    async def begin_writer(self, writer: str, *, batch_id: str, owner: str, at: float) -> None:
        """Record that a processor is about to write result blobs under this writer's name.

        A commit under a writer that was never begun, or that was fenced, is refused as stale,
        because its bytes may be gone. A repeat changes nothing, also for a fenced writer. Nothing
        is recorded for a batch that was removed.
        """

    @abstractmethod
    async def plan_batch(self, claim: Claim, plan: Plan, *, at: float) -> Batch:
        """Record plan, shards and totals and move the batch to `in_progress`, in one transaction.

        Its waiting reason is cleared.

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

    # Members: the processors that are alive

    @abstractmethod
    async def renew_membership(self, owner: str, *, lease_seconds: float) -> None:
        """Make this processor a member until `lease_seconds` from now."""

    @abstractmethod
    async def leave(self, owner: str) -> None:
        """End the membership of this processor. If it is no member, nothing happens."""

    @abstractmethod
    async def list_members(self) -> tuple[str, ...]:
        """Return the processors that are alive, sorted."""

    # Quarantine (PROTOCOL 20)

    @abstractmethod
    async def record_suspect(self, claim: Claim, index: int) -> None:
        """Record the line of a shard that is about to be sent alone.

        Raises:
            ClaimLost: the shard has a higher epoch, or has ended.
        """

    @abstractmethod
    async def record_sandbox_death(self, claim: Claim, index: int) -> int:
        """Record that a sandbox died of the suspect line; return the deaths of that line.

        The line is no longer the suspect afterwards, so that a repeat only returns the number.

        Raises:
            ClaimLost: the shard has a higher epoch, or has ended.
        """

    # Retention: files and batches that are no longer wanted

    @abstractmethod
    async def list_unused_files(self, *, limit: int) -> list[UnusedFile]:
        """Return files that are deleted or expired, held by no live batch, and not yet released."""

    @abstractmethod
    async def release_files(self, file_ids: Sequence[str], *, keep_seconds: float) -> list[str]:
        """Release the bytes of those files that are still unused; return their ids.

        Files that were released before are among them. Their blobs are retained for
        `keep_seconds` from now for readers, or longer if an earlier call asked for that. A row
        without parts remains, which marks the file's place in lists.
        """

    @abstractmethod
    async def list_ending(self, *, limit: int) -> list[Batch]:
        """Return batches that are not terminal and of which no line may run, the oldest first.

        They are cancelling or finalizing, or their window has closed.
        """

    @abstractmethod
    async def list_old_batches(self, *, ended_seconds: float, limit: int) -> list[OldBatch]:
        """Return batches that have been terminal for `ended_seconds`, the oldest first."""

    @abstractmethod
    async def drop_batches(self, batch_ids: Sequence[str]) -> int:
        """Remove terminal batches with their shards, units and writers; return how many.

        Their result files stay until they expire or are deleted.
        """

    @abstractmethod
    async def purge(self, *, age_seconds: float, limit: int) -> Purged:
        """Remove rows of released files, and of uploads that are over and name no file.

        An upload is over when it was abandoned, or when the file that it became is purged. Only
        rows that are at least `age_seconds` old are removed, and a file only together with its
        uploads; at most `limit` files and `limit` abandoned uploads in one call.
        """

    # Garbage (PROTOCOL 18)

    @abstractmethod
    async def list_unreferenced(self, names: Sequence[str]) -> list[str]:
        """Return those of these blobs that no row needs and that are not retained for readers.

        The writer of one of them may still be about to commit it: this answer alone permits no
        deletion. A plan is needed while its batch is not terminal.
        """

    @abstractmethod
    async def fence_and_list_deletable(
        self, names: Sequence[str], *, idle_seconds: float
    ) -> list[str]:
        """Fence the writers that could still commit these blobs; return what may be deleted.

        Of the unreferenced blobs, these may be deleted: the blob of an upload that is finished or
        abandoned (one pending for at least `idle_seconds` is abandoned here); a plan whose epoch is
        superseded or whose planning has ended (an expired claim's epoch is raised here); results
        whose writer can no longer commit: it was fenced before, its batch was removed or has no
        open shard, or it is fenced here because its owner holds no live claim of the batch (the
        epochs of its expired claims are raised here, which counts as lost by a crash). An upload
        or writer that was never begun can no longer begin. An unknown form of name is never
        returned.
        """

    @abstractmethod
    async def list_retained(self, *, limit: int) -> list[str]:
        """Return blobs whose retention for readers is over."""

    @abstractmethod
    async def forget_retained(self, names: Sequence[str]) -> None:
        """Remove the retention of these blobs: they are deleted, or are needed again."""

    # Repair (PROTOCOL 19)

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
        """Make lines of a batch whose results are gone run again.

        Each shard gets its new bits, is open again, and has its epoch raised, so that its holder
        can no longer write (if another owner then claims a shard that was open, that counts as lost
        by a crash); counts and usage are lowered, and the files lose the parts. Writers whose bytes
        are gone are fenced, so that nothing is appended to a lost blob. Return False and change
        nothing if the batch has no open shard or an expectation of the repair no longer holds.
        """
