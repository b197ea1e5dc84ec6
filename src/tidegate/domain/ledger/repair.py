"""Rules of repair (PROTOCOL 19): lines run again if their results are gone."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tidegate.domain.batch import Batch
from tidegate.domain.blob_names import ResultBlob, parse
from tidegate.domain.file import File, Part, total_length
from tidegate.domain.ledger.claims import Hold
from tidegate.domain.ledger.values import FileRepair, Repair, ShardRepair
from tidegate.domain.shard import Shard, Tally, count_done
from tidegate.domain.usage import Usage


def is_expected(
    repair: Repair, shards: Mapping[int, Shard], parts: Mapping[str, Sequence[Part]]
) -> bool:
    """Return whether shards and files still meet the expectations of the repair."""
    return all(_is_as_found(shards.get(one.number), one) for one in repair.shards) and all(
        tuple(parts[one.file_id]) == one.old for one in repair.files
    )


def is_done_already(
    repair: Repair, shards: Mapping[int, Shard], parts: Mapping[str, Sequence[Part]]
) -> bool:
    """Return whether the repair was applied before."""
    return all(_is_repaired(shards.get(one.number), one) for one in repair.shards) and all(
        tuple(parts[one.file_id]) == one.new for one in repair.files
    )


def repaired_shard(shard: Shard, repair: ShardRepair) -> Shard:
    """Return the shard with its new bits, open; its latest segment is forgotten."""
    lines = shard.plan.lines
    assert len(repair.done) == len(shard.done), "bits of another shard"
    before = int.from_bytes(shard.done, "little")
    after = int.from_bytes(repair.done, "little")
    assert after & ~before == 0, "a repair makes no line done"
    assert count_done(repair.done) < lines, "nothing would be left to do"
    return replace(
        shard, done=repair.done, sequence=shard.sequence + 1, last_segment=None, ended=False
    )


def reopened(hold: Hold) -> Hold:
    """Return the hold of a repaired shard: claimable, under a higher epoch.

    If the shard had not ended, its owner stays recorded, because that owner may have crashed before
    the repair. The crash counts if another owner claims the shard next (PROTOCOL 20).
    """
    return replace(
        hold,
        owner=None if hold.ended else hold.owner,
        epoch=hold.epoch + 1,
        expires_at=0.0,
        not_before=None,
        ended=False,
    )


def repaired_batch(batch: Batch, repair: Repair) -> Batch:
    """Return the batch with counts, usage and lengths of files lowered."""
    lost = repair.lost
    counts = replace(
        batch.counts,
        completed=batch.counts.completed - lost.completed,
        failed=batch.counts.failed - lost.failed,
        expired=batch.counts.expired - lost.expired,
    )
    shorter = {one.file_id: total_length(one.old) - total_length(one.new) for one in repair.files}
    assert set(shorter) <= {batch.output_file_id, batch.error_file_id}, "a file of another batch"
    return replace(
        batch,
        counts=counts,
        usage=_without(batch.usage, lost.usage),
        output_bytes=batch.output_bytes - shorter.get(batch.output_file_id or "", 0),
        error_bytes=batch.error_bytes - shorter.get(batch.error_file_id or "", 0),
    )


def repaired_file(file: File, repair: FileRepair) -> File:
    """Return a file without the bytes that are gone."""
    assert file.growing, f"file '{file.id}' is final"
    known = {part.blob for part in repair.old}
    assert all(part.blob in known for part in repair.new), "bytes of a third writer"
    assert total_length(repair.new) <= file.bytes, "a repair makes no file longer"
    return replace(file, bytes=total_length(repair.new))


def writers_of_lost_blobs(repair: Repair) -> list[str]:
    """Return the writers whose bytes are gone: they would append to a lost blob."""
    lost = {part.blob for one in repair.files for part in {*one.old} - {*one.new}}
    found = {name.writer for blob in lost if isinstance(name := parse(blob), ResultBlob)}
    return sorted(found)


def check_lost_lines(repair: Repair, before: Sequence[Shard]) -> None:
    """Assert that as many lines become undone as the counts lose."""
    done = sum(count_done(shard.done) for shard in before)
    left = sum(count_done(one.done) for one in repair.shards)
    lost: Tally = repair.lost
    assert done - left == lost.completed + lost.failed, (done, left, lost)


def _is_as_found(shard: Shard | None, repair: ShardRepair) -> bool:
    if shard is None:
        return False
    return shard.epoch == repair.epoch and shard.sequence == repair.sequence


def _is_repaired(shard: Shard | None, repair: ShardRepair) -> bool:
    if shard is None or shard.done != repair.done:
        return False
    return shard.epoch > repair.epoch and shard.sequence == repair.sequence + 1


def _without(usage: Usage, lost: Usage) -> Usage:
    left = Usage(
        input_tokens=usage.input_tokens - lost.input_tokens,
        cached_tokens=usage.cached_tokens - lost.cached_tokens,
        output_tokens=usage.output_tokens - lost.output_tokens,
        reasoning_tokens=usage.reasoning_tokens - lost.reasoning_tokens,
    )
    assert min(left.input_tokens, left.cached_tokens) >= 0, left
    assert min(left.output_tokens, left.reasoning_tokens) >= 0, left
    return left
