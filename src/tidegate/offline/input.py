"""Uploads the input into the private ledger and creates its batch."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec

from tidegate.access.principal import Principal
from tidegate.application.batches import create_batch
from tidegate.application.context import Application
from tidegate.application.files import upload
from tidegate.application.upload_form import Field, FileStart, FormEvent
from tidegate.domain.batch import Batch
from tidegate.domain.errors import Refused, UpstreamFault
from tidegate.domain.file import File, Purpose
from tidegate.offline.job import ENDPOINTS, FileFormat, OfflineJob, file_format_of
from tidegate.offline.model_override import with_model
from tidegate.offline.prompts import Requests
from tidegate.offline.rows import ROW_BYTES_MAX, numbered_lines, pieces_of, read_rows
from tidegate.wire.batch_request import BatchRequest

TENANT = "default"
# A run may be continued after months; nothing of it expires meanwhile.
WINDOW = "365d"
WINDOW_SECONDS = 365 * 86_400
GATHER_BYTES = 2**18
MODELS_SHOWN_MAX = 10


class _Url(msgspec.Struct):
    url: str


_decode_url = msgspec.json.Decoder(_Url).decode


async def sha256_of(job: OfflineJob) -> str:
    """Return the SHA-256 of the input in hexadecimal digits.

    Raises:
        Refused: it can't be read.
    """
    running = hashlib.sha256()
    for piece in pieces_of(job.source):
        running.update(piece)
        await asyncio.sleep(0)
    return running.hexdigest()


def check_job(job: OfflineJob) -> None:
    """Refuse what can be refused without reading the input.

    Raises:
        Refused: the input is a table without prompt options, or they contradict each other.
    """
    file_format = file_format_of(job.source)
    if job.prompt_options is None:
        if file_format is not FileFormat.JSONL:
            raise Refused(
                f"{job.source} is not a batch file: define how its rows become prompts with "
                "--prompt-template 'Translate: {text}' or --column text."
            )
        return
    if (job.prompt_options.template is None) == (job.prompt_options.column is None):
        raise Refused("Give either --prompt-template or --column for the prompt, not both.")


async def find_batch(app: Application) -> Batch | None:
    """Return the batch of an earlier run with this state, if any."""
    page = await app.store.list_batches(TENANT, after=None, limit=1)
    return page.items[0] if page.items else None


async def start_batch(app: Application, job: OfflineJob, sha256: str) -> Batch:
    """Upload the input and create its batch.

    Raises:
        Refused: the input is not acceptable, or changed while it was read.
        StorageFull: no room is left.
        StoreUnavailable: the ledger gave no answer.
    """
    endpoint = await job_endpoint(app, job)
    model = job.model
    if job.prompt_options is not None and model is None:
        model = await _only_model(app)
    # A file that a killed run uploaded before it created the batch is not used.
    file = await _uploaded(app, job, input_lines(job, endpoint, model))
    if await sha256_of(job) != sha256:
        raise Refused(f"{job.source} was changed while it was read: run the command again.")
    request = BatchRequest(
        input_file_id=file.id, endpoint=endpoint, completion_window=WINDOW, metadata=None
    )
    return await create_batch(app, Principal(tenant=TENANT), request, idempotency_key="run")


def input_lines(job: OfflineJob, endpoint: str, model: str | None) -> Iterator[bytes]:
    """Yield the bytes of the batch file that this input becomes.

    Raises:
        Refused: the input can't be read, or a row lacks a column.
    """
    if job.prompt_options is not None:
        assert model is not None, "rows name no model"
        requests = Requests(job.prompt_options, endpoint=endpoint, model=model)
        return requests.lines(read_rows(job.source, file_format_of(job.source)))
    if model is not None:
        return with_model(job.source, model, line_bytes_max=ROW_BYTES_MAX)
    return pieces_of(job.source)


async def _uploaded(app: Application, job: OfflineJob, lines: Iterator[bytes]) -> File:
    try:
        return await upload(app, Principal(tenant=TENANT), _events(job.source.name, lines))
    except Refused as refused:
        if job.prompt_options is not None:
            raise
        raise Refused(
            f"{refused.message.removesuffix('.')}. `tidegate validate {job.source}` lists every "
            "problem."
        ) from refused


async def _events(name: str, lines: Iterator[bytes]) -> AsyncIterator[FormEvent]:
    yield Field(name="purpose", value=Purpose.BATCH.value)
    yield FileStart(filename=name)
    held: list[bytes] = []
    length = 0
    for line in lines:
        held.append(line)
        length += len(line)
        if length >= GATHER_BYTES:
            yield b"".join(held)
            held, length = [], 0
            await asyncio.sleep(0)
    yield b"".join(held)


async def job_endpoint(app: Application, job: OfflineJob) -> str:
    """Return the endpoint of the job, else that of the first line if it is allowed, else chat.

    Raises:
        Refused: the input can't be read.
    """
    if job.endpoint is not None:
        return job.endpoint
    if job.prompt_options is None:
        found = first_url(job.source)
        if found in app.settings.endpoints:
            return found
    return ENDPOINTS["chat"]


def first_url(path: Path) -> str | None:
    """Return the url of the first line that is not blank; None if it has none."""
    _, raw = next(numbered_lines(path, ROW_BYTES_MAX), (0, None))
    return url_of(raw)


def url_of(raw: bytes | None) -> str | None:
    """Return the url of a line; None if it has none, or is too long to be read."""
    try:
        return None if raw is None else _decode_url(raw).url
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


async def _only_model(app: Application) -> str:
    try:
        models = await app.models.list_models()
    except UpstreamFault as fault:
        raise Refused(
            f"Name the model with --model: the server does not list its models ({fault})."
        ) from fault
    if len(models) == 1:
        return models[0]
    shown = ", ".join(models[:MODELS_SHOWN_MAX]) or "none"
    raise Refused(f"Name the model with --model: the server lists {shown}.")
