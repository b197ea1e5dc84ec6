"""What a user may ask of files: upload, read, list, delete."""

import asyncio
from collections.abc import AsyncIterator

from tidegate.access.principal import Principal
from tidegate.application.content import Content
from tidegate.application.context import Application
from tidegate.application.rules import check_range, could_be_id, echo
from tidegate.application.settings import Settings
from tidegate.application.upload_form import Field, FileStart, FormEvent, UploadForm
from tidegate.blobs.base import BlobWriter
from tidegate.domain.blob_names import UploadBlob
from tidegate.domain.errors import StoreUnavailable, TidegateError
from tidegate.domain.file import File, Part, Purpose
from tidegate.domain.ledger.files import no_file
from tidegate.domain.ledger.values import Page
from tidegate.wire.batch_request import missing_parameter

ABANDON_SECONDS_MAX = 5.0


async def upload(app: Application, principal: Principal, events: AsyncIterator[FormEvent]) -> File:
    """Store the file of a form, and return it once it survives power loss.

    If the stream ends early (a refusal, a client that went away, a full disk), neither
    a file nor its bytes remain.

    Raises:
        Refused: the form is not acceptable.
        StorageFull: no room is left.
        StoreUnavailable: the ledger gave no answer, and the upload is not known to be recorded.
    """
    form = UploadForm(app.settings)
    async for event in events:
        if isinstance(event, Field):
            form.add_field(event)
        elif isinstance(event, FileStart):
            form.start_file(event)
            return await _take_in(app, principal, form, events)
    raise missing_parameter("file")


async def _take_in(
    app: Application, principal: Principal, form: UploadForm, events: AsyncIterator[FormEvent]
) -> File:
    upload_id = app.ids.make("upload_")
    blob = UploadBlob(upload_id=upload_id).name
    await app.store.begin_upload(upload_id, tenant=principal.tenant, blob=blob, at=app.clock.now())
    try:
        async with app.blobs.writer(blob) as writer:
            await _pour(form, events, writer)
            length = await writer.finish()
        assert length == form.bytes, (length, form.bytes)
        return await _record(app, principal, upload_id, form)
    except BaseException:
        await _abandon(app, upload_id, blob)
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


async def _record(app: Application, principal: Principal, upload_id: str, form: UploadForm) -> File:
    now = app.clock.now()
    file = File(
        id=app.ids.make("file-"),
        tenant=principal.tenant,
        filename=form.filename,
        purpose=form.purpose,
        bytes=form.bytes,
        created_at=now,
        expires_at=None if form.expires_seconds is None else now + form.expires_seconds,
    )
    blob = UploadBlob(upload_id=upload_id).name
    parts = [Part(blob=blob, offset=0, length=form.bytes)] if form.bytes else []
    try:
        return await app.store.finish_upload(upload_id, file, parts)
    except StoreUnavailable:
        # The outcome is unknown. If the upload can't be fenced, it has become a file.
        if await app.store.abandon_upload(upload_id):
            raise
        return await app.store.finish_upload(upload_id, file, parts)


async def _abandon(app: Application, upload_id: str, blob: str) -> None:
    """Fence a failed upload; its bytes go only once it is fenced.

    This is a courtesy: bytes that no file names are only a waste, so a failure here must not
    hide the error that led here.
    """
    try:
        async with asyncio.timeout(ABANDON_SECONDS_MAX):
            if await app.store.abandon_upload(upload_id):
                await app.blobs.delete(blob)
    except (TidegateError, TimeoutError):
        return


async def read_file(app: Application, principal: Principal, file_id: str) -> File:
    """Return a file.

    Raises:
        NotFound: there is none that this tenant may see.
    """
    if not could_be_id(file_id):
        raise no_file(echo(file_id))
    file = await app.store.get_file(principal.tenant, file_id)
    if not is_shown(file, app.settings):
        raise no_file(file_id)
    return file


async def open_content(app: Application, principal: Principal, file_id: str) -> Content:
    """Return the content of a file, ready to be read.

    Raises:
        NotFound: there is none that this tenant may see.
    """
    if not could_be_id(file_id):
        raise no_file(echo(file_id))
    file, parts = await app.store.get_parts(principal.tenant, file_id)
    if not is_shown(file, app.settings):
        raise no_file(file_id)
    assert file.bytes == sum(part.length for part in parts), file
    return Content(file=file, parts=parts, blobs=app.blobs, downloads=app.downloads)


FILES_MAX = 10_000


async def list_files(
    app: Application,
    principal: Principal,
    *,
    after: str | None = None,
    limit: int | None = None,
    ascending: bool = False,
    purpose: Purpose | None = None,
) -> Page[File]:
    """Return the files after `after`, newest first unless `ascending`.

    Raises:
        Refused: the limit is not between 1 and `FILES_MAX`.
        NotFound: `after` names no file of this tenant.
    """
    size = FILES_MAX if limit is None else limit
    check_range("limit", size, low=1, high=FILES_MAX)
    if after is not None and not could_be_id(after):
        raise no_file(echo(after), param="after")
    found: list[File] = []
    more = True
    while more and len(found) < size:
        page = await app.store.list_files(
            principal.tenant,
            after=after,
            limit=size - len(found),
            ascending=ascending,
            purpose=purpose,
        )
        found += [file for file in page.items if is_shown(file, app.settings)]
        more = page.has_more
        after = page.items[-1].id if page.items else after
    return Page(items=tuple(found), has_more=more)


async def delete_file(app: Application, principal: Principal, file_id: str) -> str:
    """Hide a file at once, and return its id.

    Raises:
        NotFound: there is none that this tenant may see.
        Conflict: a batch is still writing it.
    """
    file = await read_file(app, principal, file_id)
    await app.store.delete_file(principal.tenant, file.id)
    return file.id


def is_shown(file: File, settings: Settings) -> bool:
    """Return whether users see this file yet."""
    return settings.early_results or not file.growing
