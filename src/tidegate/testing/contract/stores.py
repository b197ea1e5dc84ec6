"""Building blocks of the ledger's contract: a manual clock, and small valid values.

The contract itself is in `stores_files`, `stores_batches`, `stores_claims`, `stores_renewals`,
`stores_commits` and `stores_batch_ends`.
Subclass each class there in a test module that has the fixtures `clock`, a `ManualClock`, and
`store`, a fresh, empty, open ledger that was given this clock.
"""

from collections.abc import Awaitable, Sequence
from typing import TypeVar

from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import TidegateError
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.values import (
    ClaimedBatch,
    ClaimedShard,
    Commit,
    Plan,
    ShardCommit,
    Want,
)
from tidegate.domain.shard import ShardPlan, Tally
from tidegate.domain.share import Offer
from tidegate.stores.base import Store

E = TypeVar("E", bound=TidegateError)

START = 1_000_000.0
LEASE = 15.0
WINDOW = 3600.0
TENANT = "tenant-one"
LINE_BYTES = 10
INPUT = Part(blob="uploads/in", offset=0, length=100)


class ManualClock:
    """A clock that stands still until it is turned."""

    def __init__(self, now: float = START) -> None:
        self._now = now

    def now(self) -> float:
        """Return Unix seconds."""
        return self._now

    def turn(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds


async def refusal(call: Awaitable[object], kind: type[E]) -> E:
    """Return the error of exactly this kind that the call must raise."""
    try:
        await call
    except kind as error:
        if type(error) is kind:
            return error
        raise
    raise AssertionError(f"{kind.__name__} was not raised")


async def upload(
    store: Store,
    file_id: str = "file-in",
    *,
    tenant: str = TENANT,
    created_at: float = START,
    expires_at: float | None = None,
    purpose: Purpose = Purpose.BATCH,
) -> File:
    """Upload a file of one part, `INPUT`."""
    file = File(
        id=file_id,
        tenant=tenant,
        filename="in.jsonl",
        purpose=purpose,
        bytes=INPUT.length,
        created_at=created_at,
        expires_at=expires_at,
    )
    await store.begin_upload(f"upload-{file_id}", tenant=tenant, blob=INPUT.blob, at=created_at)
    return await store.finish_upload(f"upload-{file_id}", file, [INPUT])


def a_batch(
    batch_id: str = "batch_1",
    *,
    tenant: str = TENANT,
    created_at: float = START,
    input_file_id: str = "file-in",
    idempotency_key: str | None = None,
    output_expires_seconds: int | None = None,
) -> Batch:
    """Return a batch at the start of its life, open for `WINDOW` seconds."""
    return Batch(
        id=batch_id,
        tenant=tenant,
        endpoint="/v1/chat/completions",
        input_file_id=input_file_id,
        completion_window="1h",
        status=Status.VALIDATING,
        created_at=created_at,
        expires_at=created_at + WINDOW,
        idempotency_key=idempotency_key,
        output_expires_seconds=output_expires_seconds,
    )


def a_plan(batch_id: str, shards: Sequence[tuple[str, int]]) -> Plan:
    """Return a plan with one shard for each (model, lines)."""
    return Plan(
        blob=f"plans/{batch_id}",
        shards=tuple(
            ShardPlan(number=number, model=model, offset=number * 1000, length=1000, lines=lines)
            for number, (model, lines) in enumerate(shards)
        ),
        models=tuple(sorted({model for model, _ in shards})),
        total=sum(lines for _, lines in shards),
        output_file_id=f"file-{batch_id}-output",
        error_file_id=f"file-{batch_id}-error",
    )


async def list_offers(store: Store) -> list[Offer]:
    """Return all that a poll offers, in its order."""
    return list((await store.poll("anna", offers_max=1_000)).offers)


async def claim_planning(store: Store, owner: str = "anna") -> ClaimedBatch:
    """Claim a planning that must be there."""
    claimed = await store.claim_planning(owner, lease_seconds=LEASE)
    assert claimed is not None, "no planning to claim"
    return claimed


async def claim_finalizing(store: Store, owner: str = "anna") -> ClaimedBatch:
    """Claim a finalizing that must be there."""
    claimed = await store.claim_finalizing(owner, lease_seconds=LEASE)
    assert claimed is not None, "no finalizing to claim"
    return claimed


async def planned(
    store: Store, batch: Batch | None = None, *, shards: Sequence[tuple[str, int]] = (("m", 3),)
) -> Batch:
    """Create a batch, by default `a_batch()`, and plan it. Nothing else may wait for planning."""
    batch = await store.create_batch(batch or a_batch())
    planning = await claim_planning(store)
    assert planning.batch.id == batch.id, planning
    await begin_writer(store, batch.id)
    return await store.plan_batch(planning.claim, a_plan(batch.id, shards), at=batch.created_at + 1)


async def begin_writer(store: Store, batch_id: str = "batch_1", *, owner: str = "anna") -> None:
    """Begin the writer of `writer_of`."""
    await store.begin_writer(writer_of(batch_id), batch_id=batch_id, owner=owner, at=START)


def writer_of(batch_id: str) -> str:
    """Return the writer that `planned` begins, in the name of "anna"."""
    return f"writer_{batch_id}"


async def claim_shards(
    store: Store,
    owner: str = "anna",
    *,
    batch_id: str = "batch_1",
    model: str = "m",
    limit: int = 100,
) -> tuple[ClaimedShard, ...]:
    """Claim shards of one batch and model, as many as there are."""
    wants = [Want(batch_id=batch_id, model=model, limit=limit)]
    claimed = await store.claim_shards(owner, wants, lease_seconds=LEASE)
    assert len(claimed) <= 1, claimed
    return claimed[0].shards if claimed else ()


async def claim_shard(
    store: Store, owner: str = "anna", *, batch_id: str = "batch_1"
) -> ClaimedShard:
    """Claim one shard that must be there."""
    (claimed,) = await claim_shards(store, owner, batch_id=batch_id, limit=1)
    return claimed


def result(
    claimed: ClaimedShard,
    indexes: Sequence[int],
    *,
    sequence: int | None = None,
    output: Part | None = None,
    errors: Part | None = None,
    tally: Tally | None = None,
) -> ShardCommit:
    """Return the part of a commit that says these lines completed, without parts by default."""
    return ShardCommit(
        number=claimed.shard.plan.number,
        epoch=claimed.claim.epoch,
        sequence=claimed.shard.sequence if sequence is None else sequence,
        indexes=tuple(indexes),
        output=output,
        errors=errors,
        tally=tally or Tally(completed=len(indexes)),
    )


def a_commit(
    *shards: ShardCommit,
    segment: str = "segment-1",
    batch_id: str = "batch_1",
    at: float = START,
    writer: str | None = None,
) -> Commit:
    """Return a commit of these shards, by the writer that `planned` begins."""
    return Commit(
        segment_id=segment,
        batch_id=batch_id,
        shards=shards,
        at=at,
        writer=writer_of(batch_id) if writer is None else writer,
    )


async def run_whole(store: Store, batch_id: str = "batch_1", *, at: float = START) -> None:
    """Claim every free shard of model "m" and complete all of its lines in one commit."""
    await begin_writer(store, batch_id)
    claimed = await claim_shards(store, batch_id=batch_id)
    offset = 0
    parts: list[ShardCommit] = []
    for one in claimed:
        length = LINE_BYTES * one.shard.plan.lines
        output = Part(blob=f"results/{batch_id}", offset=offset, length=length)
        offset += length
        parts.append(result(one, range(one.shard.plan.lines), output=output))
    await store.commit(a_commit(*parts, segment=f"whole-{batch_id}", batch_id=batch_id, at=at))
