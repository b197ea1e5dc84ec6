"""What a collector does, one call each. It has no patience: what may go goes at once.

Its order is that of every collector: the ledger lets go and fences first, then bytes are deleted.
"""

from testkit.power.acts import TENANT, Acts
from tidegate.domain.blob_names import UploadBlob
from tidegate.domain.file import Part

_LIMIT = 1_000


async def compact(acts: Acts, file_id: str) -> None:
    """Copy the bytes of a file into one new blob, and let the file consist of that."""
    _, old = await acts.store.get_parts(TENANT, file_id)
    assert len(old) > 1, "nothing to compact"
    upload_id = acts.new_id("upload_")
    blob = UploadBlob(upload_id=upload_id).name
    now = acts.clock.now()
    await acts.store.begin_upload(upload_id, tenant=TENANT, blob=blob, at=now)
    async with acts.blobs.writer(blob) as writer:
        for part in old:
            await writer.write(await acts.blobs.read(part.blob, part.offset, part.length))
        length = await writer.finish()
    new = [Part(blob=blob, offset=0, length=length)]
    swapped = await acts.store.swap_parts(upload_id, file_id, old=old, new=new, keep_seconds=0.0)
    assert swapped, "somebody else changed the file"


async def sweep(acts: Acts) -> None:
    """Let go of files that nobody needs, and delete every blob that may go."""
    store, blobs = acts.store, acts.blobs
    unused = [file.file_id for file in await store.list_unused_files(limit=_LIMIT)]
    await store.release_files(unused, keep_seconds=0.0)
    retained = await store.list_retained(limit=_LIMIT)
    for name in await store.list_unreferenced(retained):
        await blobs.delete(name)
    await store.forget_retained(retained)
    for name in await store.fence_and_list_deletable(await blobs.list_names(""), idle_seconds=0.0):
        await blobs.delete(name)
    await blobs.remove_leftovers()


async def forget(acts: Acts) -> None:
    """Remove every batch that has ended."""
    old = await acts.store.list_old_batches(ended_seconds=0.0, limit=_LIMIT)
    dropped = await acts.store.drop_batches([batch.batch_id for batch in old])
    assert dropped == len(old)


async def purge(acts: Acts) -> None:
    """Remove the rows of files and uploads that are over."""
    await acts.store.purge(age_seconds=0.0, limit=_LIMIT)


async def check_swept(acts: Acts) -> None:
    """Hold the blobs to the ledger: each is needed, each that is needed is there and long enough.

    For when every batch has ended and a sweep came after.
    """
    references = await acts.store.list_references(after="", limit=_LIMIT)
    needed = {reference.blob: reference.bytes_needed for reference in references}
    names = await acts.blobs.list_names("")
    assert set(names) == set(needed), (names, needed)
    for name in names:
        assert await acts.blobs.length(name) >= needed[name], name
    assert await acts.blobs.count_leftovers() == 0
