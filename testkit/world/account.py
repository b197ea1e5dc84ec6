"""An independent account of what a ledger grants and accepts: the invariants, at every step.

It knows the protocol in the simplest words and shares no code with what it watches. It records
each call at the moment of its effect, whether or not the caller gets an answer, and looks at rows
that the call may have touched.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import msgspec

from testkit.world.blob_account import BlobAccount
from testkit.world.broken import Broken
from testkit.world.windows import Windows
from tidegate.domain.batch import NEXT, Batch, Counts, Problem, Status
from tidegate.domain.claim import Claim, Kind, Unit
from tidegate.domain.ledger.values import (
    ClaimedBatch,
    ClaimedShards,
    Commit,
    Plan,
    Poll,
    Repair,
    ShardCommit,
    States,
    Want,
)
from tidegate.domain.shard import Verdict
from tidegate.runtime.clock import Clock
from tidegate.stores.base import Store
from tidegate.wire.plan_format import unpack_all

PROCESSOR_DEATHS_MAX = 2


class _ErrorOf(msgspec.Struct):
    code: str


class ResultLine(msgspec.Struct):
    """What an account reads of a result line."""

    custom_id: str
    error: _ErrorOf | None


@dataclass(slots=True)
class WriteGrant:
    """Who may write for a unit: the owner of the highest epoch granted, until it is fenced.

    `refused`: a commit under it was, so that its holder lets go of what had come back.
    """

    epoch: int = 0
    owner: str = ""
    fenced: bool = False
    refused: bool = False
    expires_at: float = 0.0
    granted_at: float = 0.0


@dataclass(slots=True)
class Job:
    """A batch as the account knows it.

    `shard_of` maps custom_ids to shards once it is planned; `cancelled_at` is in loop time.
    """

    batch: Batch
    shard_of: dict[str, int] = field(default_factory=dict)
    repairs: int = 0
    cancelled_at: float | None = None


class Account:
    """What was granted, planned, recorded and ended.

    Attributes:
        could_renew: says of a processor whether nothing has gone wrong for it since then.
    """

    def __init__(self, store: Store, holdings: BlobAccount, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._windows = Windows(clock)
        self._holdings = holdings
        self._rights: dict[Unit, WriteGrant] = {}
        self._segments: set[tuple[str, str, int]] = set()
        self._latest: dict[tuple[str, int], str] = {}
        self.jobs: dict[str, Job] = {}
        self.recorded: dict[str, set[str]] = {}
        self.refused = 0
        self._deaths: Counter[tuple[str, int]] = Counter()
        self.could_renew: Callable[[str, float], bool] | None = None

    def right(self, unit: Unit) -> WriteGrant:
        """Return who may write for a unit now."""
        return self._rights.setdefault(unit, WriteGrant())

    def died_of(self, batch_id: str, name: str) -> None:
        """Record that a line killed a whole processor, which may happen twice for each shard."""
        shard = (batch_id, self.jobs[batch_id].shard_of[name])
        self._deaths[shard] += 1
        if self._deaths[shard] > PROCESSOR_DEATHS_MAX:
            raise Broken(f"{name} has killed processor after processor: {self._deaths[shard]}")

    # Batches

    async def after_create_batch(self, answer: Batch, batch: Batch) -> None:
        """Record a batch, new or known."""
        if answer.id not in self.jobs:
            if (answer.id, answer.version, answer.status) != (batch.id, 0, Status.VALIDATING):
                raise Broken(f"a batch that nobody created: {answer}")
            held = await self._store.get_input(batch.id) is not None
            self.jobs[batch.id] = Job(answer)
            self.recorded[batch.id] = set()
            self._holdings.created(batch, holds_input=held)
        await self.look(answer.id)

    async def after_cancel_batch(
        self, _answer: Batch, _tenant: str, batch_id: str, *, at: float
    ) -> None:
        """Record a cancel."""
        assert at > 0.0, at
        await self.look(batch_id)
        job = self.jobs[batch_id]
        if job.cancelled_at is None and job.batch.is_cancelling:
            job.cancelled_at = asyncio.get_running_loop().time()

    async def after_note_waiting(self, _answer: None, batch_id: str, _reason: str | None) -> None:
        """Record a note, which may change nothing else."""
        if batch_id in self.jobs:
            await self.look(batch_id)

    async def look(self, batch_id: str) -> None:
        """Hold a batch to what it was before, and to what the account knows of its lines."""
        job = self.jobs[batch_id]
        before, job.batch = job.batch, await self._store.get_batch(job.batch.tenant, batch_id)
        batch = job.batch
        if before.is_terminal and batch != before:
            raise Broken(f"{batch_id} had ended and changed: {before} became {batch}")
        if batch.status is before.status:
            if batch.version != before.version:
                raise Broken(f"{batch_id} has a new version without a new status: {batch}")
        elif batch.status not in NEXT[before.status] or batch.version != before.version + 1:
            raise Broken(
                f"{batch_id} went from {before.status} ({before.version}) "
                f"to {batch.status} ({batch.version})"
            )
        self._check_counts(batch)
        self._holdings.saw(batch)

    def _check_counts(self, batch: Batch) -> None:
        output = self._holdings.content(batch.output_file_id)
        errors = self._holdings.content(batch.error_file_id)
        if (batch.output_bytes, batch.error_bytes) != (len(output), len(errors)):
            raise Broken(f"{batch.id} has {len(output)} and {len(errors)} bytes: {batch}")
        known = Counts(
            total=len(self.jobs[batch.id].shard_of),
            completed=output.count(b"\n"),
            failed=errors.count(b"\n"),
            expired=errors.count(b'"code":"batch_expired"'),
        )
        if batch.counts != known or batch.usage.output_tokens != known.completed:
            raise Broken(f"{batch.id} counts {batch.counts} and {batch.usage}, it has {known}")

    # What time it is

    async def after_get_states(self, _answer: States, _batch_ids: Sequence[str]) -> None:
        """Record that the ledger reported its time."""
        self._windows.note_time()

    async def after_poll(self, _answer: Poll, _owner: str, **_options: object) -> None:
        """Record that the ledger reported its time, and which batches are past their window."""
        self._windows.note_time()

    # Claims

    async def after_claim_planning(
        self,
        answer: ClaimedBatch | None,
        owner: str,
        *,
        lease_seconds: float,
        ending_only: bool = False,
    ) -> None:
        """Record a claim. A processor that asks for what is ending gets nothing else."""
        if answer is not None:
            batch = answer.batch
            over = batch.is_cancelling or self._clock.now() >= batch.expires_at
            if ending_only and not over:
                raise Broken(f"{batch.id} was given to be ended, and may still run")
            self._granted(answer.claim, owner, lease_seconds)

    after_claim_finalizing = after_claim_planning

    async def after_claim_shards(
        self,
        answer: Sequence[ClaimedShards],
        owner: str,
        _wants: Sequence[Want],
        *,
        lease_seconds: float,
    ) -> None:
        """Record claims on shards."""
        for batch in answer:
            for held in batch.shards:
                self._granted(held.claim, owner, lease_seconds)

    async def after_renew(
        self, answer: Sequence[Unit], claims: Sequence[Claim], *, lease_seconds: float
    ) -> None:
        """Record a renewal: a holder that has been replaced must learn it."""
        for claim in claims:
            if claim.unit in answer:
                continue
            if not self._may_write(claim):
                raise Broken(f"a claim that was superseded was renewed: {claim}")
            self.right(claim.unit).expires_at = self._clock.now() + lease_seconds

    async def after_hand_back(
        self, _answer: None, claims: Sequence[Claim], *, wait_seconds: float = 0.0
    ) -> None:
        """Record claims that were given up: they may be granted again immediately."""
        assert wait_seconds >= 0.0, wait_seconds
        for claim in claims:
            if self._may_write(claim):
                self.right(claim.unit).expires_at = 0.0

    def _granted(self, claim: Claim, owner: str, lease_seconds: float) -> None:
        self._windows.note_time()
        right, now = self.right(claim.unit), self._clock.now()
        if claim.owner != owner or claim.epoch <= right.epoch:
            raise Broken(f"{claim} was granted to {owner} after {right}")
        # A skipped epoch was raised by a collector: the claim had expired by the clock of then.
        followed = claim.epoch == right.epoch + 1 and not right.fenced
        if followed and now < right.expires_at:
            raise Broken(f"{claim} was granted at {now}, though {right} has not expired")
        if right.owner != owner:
            self.check_may_expire(right)
        self._rights[claim.unit] = WriteGrant(
            claim.epoch,
            owner,
            expires_at=now + lease_seconds,
            granted_at=asyncio.get_running_loop().time(),
        )

    def check_may_expire(self, right: WriteGrant) -> None:
        """Record that a right is ended by others, because it has expired.

        Raises:
            Broken: its holder was alive and well, and could have renewed it.
        """
        was_held = not right.fenced and right.expires_at > 0.0
        if was_held and self.could_renew and self.could_renew(right.owner, right.granted_at):
            raise Broken(f"{right} expired under a processor that was alive and well")

    def _may_write(self, claim: Claim) -> bool:
        right = self.right(claim.unit)
        return claim.epoch == right.epoch and not right.fenced

    def _check_right(self, claim: Claim) -> None:
        if not self._may_write(claim):
            raise Broken(f"{claim} has written, though {self.right(claim.unit)} is the latest")

    # What holders write

    async def after_plan_batch(self, answer: Batch, claim: Claim, plan: Plan, *, at: float) -> None:
        """Record a plan: each line of the input must be in it once."""
        assert at > 0.0, at
        job = self.jobs[answer.id]
        if not job.shard_of:
            self._check_right(claim)
            self._holdings.refer(plan.blob)
            planned: Counter[str] = Counter()
            for shard in plan.shards:
                data = await self._holdings.read(plan.blob, shard.offset, shard.length)
                for line in unpack_all(data):
                    name = msgspec.json.decode(line.custom_id, type=str)
                    job.shard_of[name] = shard.number
                    planned[name] += 1
            self._holdings.check_plan(answer, planned, plan.total)
        await self.look(answer.id)

    async def after_end_unplanned(
        self, answer: Batch, claim: Claim, *, problems: Sequence[Problem], at: float
    ) -> None:
        """Record an end without a plan."""
        assert at > 0.0, at
        if not self.jobs[answer.id].batch.is_terminal:
            self._check_right(claim)
        if answer.status is Status.FAILED and self._holdings.holds_input(answer.id):
            raise Broken(f"{answer.id} failed, though it held a sound input: {problems}")
        if answer.status is Status.EXPIRED:
            self._windows.expired(answer)
        await self.look(answer.id)

    async def after_finish_batch(self, answer: Batch, claim: Claim, *, at: float) -> None:
        """Record a finalized batch: every line must have its result by then."""
        assert at > 0.0, at
        job = self.jobs[answer.id]
        if not job.batch.is_terminal:
            self._check_right(claim)
            missing = job.shard_of.keys() - self.recorded[answer.id]
            if missing:
                raise Broken(f"{answer.id} was closed without {sorted(missing)}")
        await self.look(answer.id)
        await self._holdings.ended(job.batch)

    async def after_commit(self, answer: Sequence[Verdict], commit: Commit) -> None:
        """Record a commit and the answer of the ledger."""
        fresh: list[ShardCommit] = []
        for part, verdict in zip(commit.shards, answer, strict=True):
            segment = (commit.batch_id, commit.segment_id, part.number)
            if verdict is not Verdict.ACCEPTED:
                self.refused += 1
                if self._latest.get(segment[::2]) == commit.segment_id:
                    raise Broken(f"{segment} was accepted, and then {verdict} when it was repeated")
            elif segment not in self._segments:
                self._segments.add(segment)
                self._latest[segment[::2]] = commit.segment_id
                self._check_shard_right(commit, part)
                fresh.append(part)
        if not fresh:
            return
        batch = self.jobs[commit.batch_id].batch
        if any(part.tally.expired for part in fresh):
            self._windows.expired(batch)
        outputs = [part.output for part in fresh if part.output is not None]
        errors = [part.errors for part in fresh if part.errors is not None]
        for part in fresh:
            await self._record(commit.batch_id, part)
        await self._holdings.grow(batch, batch.output_file_id, outputs)
        await self._holdings.grow(batch, batch.error_file_id, errors)
        await self.look(commit.batch_id)

    def _check_shard_right(self, commit: Commit, part: ShardCommit) -> None:
        right = self.right(Unit(batch_id=commit.batch_id, kind=Kind.SHARD, number=part.number))
        if part.epoch != right.epoch or right.fenced:
            raise Broken(f"shard {part.number} took a commit under {part.epoch}, latest: {right}")

    async def _record(self, batch_id: str, part: ShardCommit) -> None:
        job, recorded = self.jobs[batch_id], self.recorded[batch_id]
        lines = 0
        for piece in (part.output, part.errors):
            if piece is None:
                continue
            data = await self._holdings.read(piece.blob, piece.offset, piece.length)
            for line in data.splitlines():
                name = _result_line(line).custom_id
                if name in recorded:
                    raise Broken(f"line {name} of {batch_id} was recorded twice")
                if job.shard_of.get(name) != part.number:
                    raise Broken(f"line {name} was recorded in shard {part.number}: {job}")
                recorded.add(name)
                lines += 1
        if lines != len(part.indexes):
            raise Broken(f"{len(part.indexes)} lines were to be recorded, {lines} are in the part")

    # Repairs

    async def after_repair(self, answer: bool, repair: Repair) -> None:  # noqa: FBT001 - the ledger's own answer
        """Record lines that run again: their results are forgotten, and their shards fenced."""
        if not answer:
            return
        job = self.jobs[repair.batch_id]
        job.repairs += 1
        for shard in repair.shards:
            unit = Unit(batch_id=repair.batch_id, kind=Kind.SHARD, number=shard.number)
            right = self.right(unit)
            if right.epoch > shard.epoch:
                # Another collector's repeat of it changes nothing: the shard was claimed since.
                continue
            right.fenced = True
            # A process that waits for the answer to its latest segment learns that it is stale.
            self._latest.pop((repair.batch_id, shard.number), None)
        await self._holdings.repaired(repair)
        batch = job.batch
        data = self._holdings.content(batch.output_file_id)
        data += self._holdings.content(batch.error_file_id)
        self.recorded[repair.batch_id] = {
            msgspec.json.decode(line, type=ResultLine).custom_id for line in data.splitlines()
        }
        await self.look(repair.batch_id)


def _result_line(line: bytes) -> ResultLine:
    try:
        return msgspec.json.decode(line, type=ResultLine)
    except msgspec.DecodeError as error:
        raise Broken(f"a row points to what is no result line: {line[:100]!r}") from error
