"""Rules of uploads and files: visibility, growth, compaction."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from tidegate.domain.batch import Batch
from tidegate.domain.errors import ClaimLost, Conflict, NotFound
from tidegate.domain.file import File, Part, Purpose, total_length


def no_file(file_id: str, *, param: str = "id") -> NotFound:
    """Return the error for a file that the tenant doesn't have."""
    return NotFound(f"No such File object: {file_id}", param=param)


def is_visible(file: File, now: float, *, deleted: bool) -> bool:
    """Return whether users can see the file: not deleted, not past its expiry."""
    return not deleted and (file.expires_at is None or now < file.expires_at)


def check_deletable(file: File) -> None:
    """Refuse to delete a file that a batch is still writing.

    Raises:
        Conflict: the batch has not ended.
    """
    if file.growing:
        raise Conflict(
            f"The file '{file.id}' is still being written by batch '{file.batch_id}'. "
            "Cancel the batch or wait until it has ended, then delete the file.",
            param="id",
        )


def upload_lost(upload_id: str) -> ClaimLost:
    """Return the error for an upload that was abandoned or never begun."""
    return ClaimLost(f"The upload '{upload_id}' was abandoned or never begun; upload again.")


def check_upload(file: File, parts: Sequence[Part], *, tenant: str) -> None:
    """Assert that an uploaded file is its upload's and as long as its parts."""
    assert file.tenant == tenant, "the file of another tenant"
    assert not file.growing, "an upload is whole"
    assert file.bytes == total_length(parts), "the parts are not the file"


def extended_file(
    file: File | None, batch: Batch, growth: tuple[str, str, tuple[Part, ...]], at: float
) -> File:
    """Return a batch's file longer by these parts, new if they are its first."""
    file_id, filename, parts = growth
    if file is None:
        file = File(
            id=file_id,
            tenant=batch.tenant,
            filename=filename,
            purpose=Purpose.BATCH_OUTPUT,
            bytes=0,
            created_at=at,
            batch_id=batch.id,
            growing=True,
        )
    assert file.growing, f"file '{file_id}' is final"
    return replace(file, bytes=file.bytes + total_length(parts))


def finalized_file(file: File, batch: Batch, at: float) -> File:
    """Return a file of a closed batch: it is complete, and its time to live begins."""
    seconds = batch.output_expires_seconds
    return replace(file, growing=False, expires_at=None if seconds is None else at + seconds)


def unused_because(file: File, now: float, *, deleted: bool) -> str | None:
    """Return why users can't see a file, or None if they can."""
    if deleted:
        return "deleted"
    return None if is_visible(file, now, deleted=False) else "expired"


def check_swap(old: Iterable[Part], new: Iterable[Part], blob: str) -> None:
    """Assert that new parts hold as many bytes as the old ones, in blobs that are known."""
    old, new = list(old), list(new)
    assert old, "nothing to replace"
    assert sum(part.length for part in old) == sum(part.length for part in new), "other bytes"
    known = {blob, *(part.blob for part in old)}
    assert all(part.blob in known for part in new), "bytes of a third writer"
