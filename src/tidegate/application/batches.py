"""What a user may ask of batches: create, read, list, cancel."""

import hashlib
import re
from dataclasses import replace

import msgspec

from tidegate.access.principal import Principal
from tidegate.application.context import Application
from tidegate.application.rules import (
    check_length,
    check_metadata,
    check_range,
    could_be_id,
    echo,
    expiry_seconds,
    unsupported,
    window_seconds,
)
from tidegate.application.settings import Settings
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import Conflict, NotFound, Refused
from tidegate.domain.file import Purpose
from tidegate.domain.ledger.batches import no_batch
from tidegate.domain.ledger.values import Page
from tidegate.pubsub.base import WORK, batch_topic
from tidegate.wire.batch_request import BatchRequest

FILE_ID_CHARACTERS_MAX = 256
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def create_batch(
    app: Application,
    principal: Principal,
    request: BatchRequest,
    *,
    idempotency_key: str | None = None,
) -> Batch:
    """Record a batch, and return it once it survives power loss.

    An input file that does not exist is no error here: the batch fails when it is validated, as
    clients that poll expect. The same key with the same request gives the batch of the first call.

    Raises:
        Refused: a value may not be so.
        Conflict: the key was used for another request.
    """
    batch = await _draft(app, principal, request, idempotency_key)
    kept = await app.store.create_batch(batch)
    if kept.request_digest != batch.request_digest:
        raise Conflict(
            "This Idempotency-Key was used before with another request body. Use a new key for a "
            "new request, or repeat the first request as it was."
        )
    app.pubsub.publish(WORK)
    return shown_batch(kept, app.settings)


async def _draft(
    app: Application, principal: Principal, request: BatchRequest, key: str | None
) -> Batch:
    settings = app.settings
    if request.endpoint not in settings.endpoints:
        raise unsupported("endpoint", request.endpoint, settings.endpoints)
    window = window_seconds(request.completion_window, settings)
    if request.metadata is not None:
        check_metadata(request.metadata)
    output_expires = settings.output_expiry_seconds
    if request.output_expires_after is not None:
        output_expires = expiry_seconds("output_expires_after", request.output_expires_after)
    if key is not None and not _KEY.fullmatch(key):
        raise Refused("An Idempotency-Key must be 1 to 255 visible ASCII characters.")
    check_length("input_file_id", request.input_file_id, FILE_ID_CHARACTERS_MAX)
    await _check_input(app, principal, request.input_file_id)
    now = app.clock.now()
    return Batch(
        id=app.ids.make("batch_"),
        tenant=principal.tenant,
        endpoint=request.endpoint,
        input_file_id=request.input_file_id,
        completion_window=request.completion_window,
        status=Status.VALIDATING,
        created_at=now,
        expires_at=now + window,
        metadata=request.metadata,
        output_expires_seconds=output_expires,
        idempotency_key=key,
        request_digest=_digest(request),
    )


async def _check_input(app: Application, principal: Principal, file_id: str) -> None:
    if not could_be_id(file_id):
        return
    try:
        file = await app.store.get_file(principal.tenant, file_id)
    except NotFound:
        return
    if file.purpose is not Purpose.BATCH:
        raise Refused(
            f"The file '{file_id}' has the purpose '{file.purpose}'. The input of a batch must be "
            "uploaded with the purpose 'batch'.",
            param="input_file_id",
            code="invalid_value",
        )


def _digest(request: BatchRequest) -> str:
    """Return the same text for the same request, however its JSON was laid out."""
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).hexdigest()


async def read_batch(app: Application, principal: Principal, batch_id: str) -> Batch:
    """Return a batch as users see it.

    Raises:
        NotFound: there is none of this tenant.
    """
    if not could_be_id(batch_id):
        raise no_batch(echo(batch_id))
    return shown_batch(await app.store.get_batch(principal.tenant, batch_id), app.settings)


BATCHES_MAX = 100
BATCHES_DEFAULT = 20


async def list_batches(
    app: Application, principal: Principal, *, after: str | None = None, limit: int | None = None
) -> Page[Batch]:
    """Return the batches after `after` as users see them, newest first.

    Raises:
        Refused: the limit is not between 1 and `BATCHES_MAX`.
        NotFound: `after` names no batch of this tenant.
    """
    size = BATCHES_DEFAULT if limit is None else limit
    check_range("limit", size, low=1, high=BATCHES_MAX)
    if after is not None and not could_be_id(after):
        raise no_batch(echo(after), param="after")
    page = await app.store.list_batches(principal.tenant, after=after, limit=size)
    items = tuple(shown_batch(batch, app.settings) for batch in page.items)
    return Page(items=items, has_more=page.has_more)


async def cancel_batch(app: Application, principal: Principal, batch_id: str) -> Batch:
    """Ask for the end of a batch. One that is cancelling or cancelled is returned as it is.

    Raises:
        NotFound: there is none of this tenant.
        Conflict: it is finalizing or has ended otherwise.
    """
    if not could_be_id(batch_id):
        raise no_batch(echo(batch_id))
    batch = await app.store.cancel_batch(principal.tenant, batch_id, at=app.clock.now())
    # Who runs it must stop, and shards that nobody holds must be claimed to be ended.
    app.pubsub.publish(batch_topic(batch_id))
    app.pubsub.publish(WORK)
    return shown_batch(batch, app.settings)


def shown_batch(batch: Batch, settings: Settings) -> Batch:
    """Return the batch with the ids of its files only where there is something to read."""
    visible = batch.is_terminal or settings.early_results
    output = batch.output_file_id if visible and batch.output_bytes else None
    errors = batch.error_file_id if visible and batch.error_bytes else None
    return replace(batch, output_file_id=output, error_file_id=errors)
