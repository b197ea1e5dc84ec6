"""Runs lines of a running batch again whose results are gone (PROTOCOL 19)."""

from collections.abc import Sequence
from dataclasses import dataclass

from tidegate.blobs.base import BlobStore
from tidegate.collector.survivors import Place, Survivors, Unclear, read_places
from tidegate.domain.batch import Batch, Counts
from tidegate.domain.errors import NotFound
from tidegate.domain.file import Part
from tidegate.domain.ledger.values import FileRepair, Repair, ShardRepair
from tidegate.domain.shard import Shard, Tally, count_done, is_done, no_lines_done, with_done
from tidegate.domain.usage import Usage
from tidegate.stores.base import Store

TRIES_MAX = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class _Snapshot:
    """A batch with its shards and files as they were at one instant."""

    batch: Batch
    shards: tuple[Shard, ...]
    output: tuple[Part, ...]
    errors: tuple[Part, ...]


async def repair(store: Store, blobs: BlobStore, batch: Batch) -> int:
    """Let the lines of a batch whose results are gone run again; return their number.

    The ledger fences the holders of their shards. If a shard or a file changed meanwhile, the
    ledger refuses the repair; then the added results are read, and the repair is tried again.

    Raises:
        Unclear: it is not certain what is lost, or the batch changed at every try.
    """
    assert batch.plan_blob is not None, "no plan, no results"
    places = await read_places(blobs, batch.plan_blob, await store.get_shards(batch.id))
    survivors = Survivors(blobs, places)
    for _ in range(TRIES_MAX):
        snapshot = await _take_snapshot(store, batch)
        if snapshot is None:
            continue
        repair = await _repair(snapshot, survivors)
        lines = repair.lost.completed + repair.lost.failed
        if not repair.files:
            return 0
        if await store.repair(repair):
            return lines
    raise Unclear("it changes too fast, or its last line has just been done")


async def _take_snapshot(store: Store, batch: Batch) -> _Snapshot | None:
    """Return the batch as of one instant; None if a result was committed meanwhile."""
    shards = await store.get_shards(batch.id)
    output = await _parts(store, batch.tenant, batch.output_file_id)
    errors = await _parts(store, batch.tenant, batch.error_file_id)
    try:
        now = await store.get_batch(batch.tenant, batch.id)
    except NotFound as error:
        raise Unclear("it has been removed") from error
    after = await store.get_shards(batch.id)
    if [shard.done for shard in shards] != [shard.done for shard in after]:
        return None
    return _Snapshot(batch=now, shards=tuple(after), output=output, errors=errors)


async def _parts(store: Store, tenant: str, file_id: str | None) -> tuple[Part, ...]:
    if file_id is None:
        return ()
    try:
        _, parts = await store.get_parts(tenant, file_id)
    except NotFound:  # A file is made with its first part.
        return ()
    return parts


async def _repair(snapshot: _Snapshot, survivors: Survivors) -> Repair:
    output, good, completed = await survivors.read(snapshot.output, is_error=False)
    errors, bad, failed = await survivors.read(snapshot.errors, is_error=True)
    shards = _shards(snapshot.shards, [*good, *bad])
    lost = _lost(snapshot.batch, completed + failed)
    lines = sum(count_done(shard.done) for shard in snapshot.shards) - len(good) - len(bad)
    if lost.completed + lost.failed != lines:
        raise Unclear("its counts are not those of its lines")
    files = (
        _file(snapshot.batch.output_file_id, snapshot.output, output),
        _file(snapshot.batch.error_file_id, snapshot.errors, errors),
    )
    return Repair(
        batch_id=snapshot.batch.id,
        shards=shards,
        files=tuple(file for file in files if file is not None),
        lost=lost,
    )


def _file(file_id: str | None, old: tuple[Part, ...], new: Sequence[Part]) -> FileRepair | None:
    if file_id is None or list(old) == list(new):
        return None
    return FileRepair(file_id=file_id, old=old, new=tuple(new))


def _shards(shards: Sequence[Shard], kept: Sequence[Place]) -> tuple[ShardRepair, ...]:
    """Return the new bits of each shard that lost a line."""
    by_shard: dict[int, set[int]] = {}
    for place in kept:
        indexes = by_shard.setdefault(place.shard, set())
        if place.index in indexes:
            raise Unclear("a line has two results")
        indexes.add(place.index)
    changed: list[ShardRepair] = []
    for shard in shards:
        indexes = by_shard.get(shard.plan.number, set())
        if not all(is_done(shard.done, index) for index in indexes):
            raise Unclear("a line has a result and is not done")
        done = with_done(no_lines_done(shard.plan.lines), indexes)
        if done != shard.done:
            changed.append(
                ShardRepair(
                    number=shard.plan.number, epoch=shard.epoch, sequence=shard.sequence, done=done
                )
            )
    return tuple(changed)


def _lost(batch: Batch, kept: Tally) -> Tally:
    """Return the counts of the batch minus those of the remaining lines.

    Raises:
        Unclear: more is left than was ever counted.
    """
    counts, usage = batch.counts, batch.usage
    numbers = (
        counts.completed - kept.completed,
        counts.failed - kept.failed,
        counts.expired - kept.expired,
        usage.input_tokens - kept.usage.input_tokens,
        usage.cached_tokens - kept.usage.cached_tokens,
        usage.output_tokens - kept.usage.output_tokens,
        usage.reasoning_tokens - kept.usage.reasoning_tokens,
    )
    if min(numbers) < 0:
        raise Unclear("more results are left than were ever counted")
    completed, failed, expired, *tokens = numbers
    rest = Counts(total=completed + failed, completed=completed, failed=failed, expired=expired)
    return Tally(
        completed=rest.completed,
        failed=rest.failed,
        expired=rest.expired,
        usage=Usage(
            input_tokens=tokens[0],
            cached_tokens=tokens[1],
            output_tokens=tokens[2],
            reasoning_tokens=tokens[3],
        ),
    )
