"""Take in a file as it streams by, without ever holding more than a piece of it."""

import asyncio
from collections.abc import AsyncIterator

from tidegate.blobs.base import BlobWriter
from tidegate.desk.desk import Desk
from tidegate.desk.form import Field, FileStart, FormEvent, UploadForm
from tidegate.domain.blob_names import UploadBlob
from tidegate.domain.errors import StoreUnavailable, TidegateError
from tidegate.domain.file import File, Part
from tidegate.wire.batch_request import missing_parameter

ABANDON_SECONDS_MAX = 5.0


async def upload(desk: Desk, tenant: str, events: AsyncIterator[FormEvent]) -> File:
    """Store the file of a form, and return it once it survives power loss.

    Whatever ends the stream early (a refusal, a client that went away, a full disk) leaves neither
    a file nor its bytes.

    Raises:
        Refused: the form is not acceptable.
        StorageFull: no room is left.
        StoreUnavailable: the ledger gave no answer, and the upload is not known to be recorded.
    """
    form = UploadForm(desk.settings)
    async for event in events:
        if isinstance(event, Field):
            form.add_field(event)
        elif isinstance(event, FileStart):
            form.start_file(event)
            return await _take_in(desk, tenant, form, events)
    raise missing_parameter("file")


async def _take_in(
    desk: Desk, tenant: str, form: UploadForm, events: AsyncIterator[FormEvent]
) -> File:
    upload_id = desk.ids.make("upload_")
    blob = UploadBlob(upload_id=upload_id).name
    await desk.store.begin_upload(upload_id, tenant=tenant, blob=blob, at=desk.clock.now())
    try:
        async with desk.blobs.writer(blob) as writer:
            await _pour(form, events, writer)
            length = await writer.finish()
        assert length == form.bytes, (length, form.bytes)
        return await _record(desk, tenant, upload_id, form)
    except BaseException:
        await _abandon(desk, upload_id, blob)
        raise


async def _pour(form: UploadForm, events: AsyncIterator[FormEvent], writer: BlobWriter) -> None:
    async for event in events:
        if isinstance(event, bytes):
            form.add_bytes(event)
            await writer.write(event)
        elif isinstance(event, Field):
            form.add_field(event)
        else:
            form.start_file(event)
    form.finish()


async def _record(desk: Desk, tenant: str, upload_id: str, form: UploadForm) -> File:
    now = desk.clock.now()
    file = File(
        id=desk.ids.make("file-"),
        tenant=tenant,
        filename=form.filename,
        purpose=form.purpose,
        bytes=form.bytes,
        created_at=now,
        expires_at=None if form.expires_seconds is None else now + form.expires_seconds,
    )
    blob = UploadBlob(upload_id=upload_id).name
    parts = [Part(blob=blob, offset=0, length=form.bytes)] if form.bytes else []
    try:
        return await desk.store.finish_upload(upload_id, file, parts)
    except StoreUnavailable:
        # The outcome is unknown. Fencing the upload tells: if it can't be fenced, it is a file.
        if await desk.store.abandon_upload(upload_id):
            raise
        return await desk.store.finish_upload(upload_id, file, parts)


async def _abandon(desk: Desk, upload_id: str, blob: str) -> None:
    """Fence a failed upload; its bytes go only once it is fenced.

    This is a courtesy: bytes that no file names are only a waste, so a failure here must not
    hide the error that led here.
    """
    try:
        async with asyncio.timeout(ABANDON_SECONDS_MAX):
            if await desk.store.abandon_upload(upload_id):
                await desk.blobs.delete(blob)
    except (TidegateError, TimeoutError):
        return
