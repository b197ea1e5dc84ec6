"""Accept a batch, and wake whoever may run it."""

import hashlib
import re

import msgspec

from tidegate.desk.desk import Desk
from tidegate.desk.expiry import expiry_seconds
from tidegate.desk.metadata import check_metadata
from tidegate.desk.refusals import check_length, could_be_id, unsupported
from tidegate.desk.shown import shown_batch
from tidegate.desk.window import window_seconds
from tidegate.domain.batch import Batch, Status
from tidegate.domain.errors import Conflict, NotFound, Refused
from tidegate.domain.file import Purpose
from tidegate.signals.base import WORK
from tidegate.wire.batch_request import BatchRequest

FILE_ID_CHARACTERS_MAX = 256
_KEY = re.compile(r"[\x21-\x7e]{1,255}")


async def create_batch(
    desk: Desk, tenant: str, request: BatchRequest, *, idempotency_key: str | None = None
) -> Batch:
    """Record a batch, and return it once it survives power loss.

    An input file that does not exist is no error here: the batch fails when it is validated, as
    clients that poll expect. The same key with the same request gives the batch of the first call.

    Raises:
        Refused: a value may not be so.
        Conflict: the key was used for another request.
    """
    batch = await _draft(desk, tenant, request, idempotency_key)
    kept = await desk.store.create_batch(batch)
    if kept.request_digest != batch.request_digest:
        raise Conflict(
            "This Idempotency-Key was used before with another request body. Use a new key for a "
            "new request, or repeat the first request as it was."
        )
    desk.signals.notify(WORK)
    return shown_batch(kept, desk.settings)


async def _draft(desk: Desk, tenant: str, request: BatchRequest, key: str | None) -> Batch:
    settings = desk.settings
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
    await _check_input(desk, tenant, request.input_file_id)
    now = desk.clock.now()
    return Batch(
        id=desk.ids.make("batch_"),
        tenant=tenant,
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


async def _check_input(desk: Desk, tenant: str, file_id: str) -> None:
    if not could_be_id(file_id):
        return
    try:
        file = await desk.store.get_file(tenant, file_id)
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
