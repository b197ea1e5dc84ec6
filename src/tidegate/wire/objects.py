"""The objects that the API answers with, as OpenAI's clients read them.

Each is declared once, as a msgspec struct: it gives the bytes of the replies and, through
`object_schemas`, the JSON Schemas of the OpenAPI document. Members are encoded in the order in
which they are declared, and null when they have no value.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
from msgspec import Meta

from tidegate.domain.batch import Batch, Problem, Status
from tidegate.domain.file import File, Purpose
from tidegate.domain.usage import Usage

Schema = Mapping[str, object]
Count = Annotated[int, Meta(ge=0)]
UnixSeconds = Annotated[int, Meta(ge=0, description="Unix seconds.")]
LineNumber = Annotated[int, Meta(ge=1)]
ErrorType = Annotated[
    str, Meta(extra_json_schema={"enum": ["invalid_request_error", "server_error"]})
]
Data = TypeVar("Data")


class _Object(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A JSON object with exactly the members that are declared."""


class OpenAIFile(_Object):
    """A file. It is `processed` from the start, because only whole files are stored."""

    id: str
    object: Literal["file"]
    bytes: Count
    created_at: UnixSeconds
    expires_at: UnixSeconds | None
    filename: str
    purpose: Purpose
    # OpenAI's clients poll until this says `processed`, for up to half an hour.
    status: Literal["processed"]
    status_details: None


class DeletedFile(_Object):
    """The answer to a delete."""

    id: str
    object: Literal["file"]
    deleted: Literal[True]


class BatchError(_Object):
    """A reason why a batch failed; `line` is the number of an input line."""

    code: str
    message: str
    param: str | None
    line: LineNumber | None


class BatchErrors(_Object):
    """The reasons why a batch failed."""

    object: Literal["list"]
    data: Annotated[tuple[BatchError, ...], Meta(min_length=1)]


class RequestCounts(_Object):
    """The numbers of lines of a batch."""

    total: Count
    completed: Count
    failed: Count


class InputTokensDetails(_Object):
    """What is known of the input tokens."""

    cached_tokens: Count


class OutputTokensDetails(_Object):
    """What is known of the output tokens."""

    reasoning_tokens: Count


class BatchUsage(_Object):
    """The tokens of all lines that have a result."""

    input_tokens: Count
    input_tokens_details: InputTokensDetails
    output_tokens: Count
    output_tokens_details: OutputTokensDetails
    total_tokens: Count


class BatchExtension(_Object):
    """Members that OpenAI's API does not have."""

    models: tuple[str, ...]
    waiting_for: str | None


class OpenAIBatch(_Object):
    """A batch. `model` is null if its lines have several models, or before it is planned."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: UnixSeconds
    in_progress_at: UnixSeconds | None
    expires_at: UnixSeconds
    finalizing_at: UnixSeconds | None
    completed_at: UnixSeconds | None
    failed_at: UnixSeconds | None
    expired_at: UnixSeconds | None
    cancelling_at: UnixSeconds | None
    cancelled_at: UnixSeconds | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
    tidegate: BatchExtension


class OpenAIModel(_Object):
    """A model that can be called."""

    id: str
    object: Literal["model"]
    created: UnixSeconds
    owned_by: Literal["tidegate"]


class _Page(_Object, Generic[Data]):
    """A page of a list; the next page comes after `last_id`."""

    object: Literal["list"]
    data: Data
    first_id: str | None
    last_id: str | None
    has_more: bool


class FilePage(_Page[tuple[OpenAIFile, ...]]):
    """A page of files; the next page comes after `last_id`."""


class BatchPage(_Page[tuple[OpenAIBatch, ...]]):
    """A page of batches; the next page comes after `last_id`."""


class ModelList(_Object):
    """All models; there are no pages."""

    object: Literal["list"]
    data: tuple[OpenAIModel, ...]


class ErrorDetails(_Object):
    """What is wrong, and with which parameter."""

    message: str
    type: ErrorType
    param: str | None
    code: str | None


class ErrorReply(_Object):
    """The envelope of every error."""

    error: ErrorDetails


_encode = msgspec.json.Encoder().encode


def encode_file(file: File) -> bytes:
    """Return a file as JSON."""
    return _encode(
        OpenAIFile(
            id=file.id,
            object="file",
            bytes=file.bytes,
            created_at=int(file.created_at),
            expires_at=_seconds(file.expires_at),
            filename=file.filename,
            purpose=file.purpose,
            status="processed",
            status_details=None,
        )
    )


def encode_deleted_file(file_id: str) -> bytes:
    """Return the answer to a delete as JSON."""
    return _encode(DeletedFile(id=file_id, object="file", deleted=True))


def encode_batch(batch: Batch) -> bytes:
    """Return a batch as JSON."""
    return _encode(
        OpenAIBatch(
            id=batch.id,
            object="batch",
            endpoint=batch.endpoint,
            model=batch.models[0] if len(batch.models) == 1 else None,
            errors=_errors(batch.problems),
            input_file_id=batch.input_file_id,
            completion_window=batch.completion_window,
            status=batch.status,
            output_file_id=batch.output_file_id,
            error_file_id=batch.error_file_id,
            created_at=int(batch.created_at),
            in_progress_at=_seconds(batch.in_progress_at),
            expires_at=int(batch.expires_at),
            finalizing_at=_seconds(batch.finalizing_at),
            completed_at=_seconds(batch.completed_at),
            failed_at=_seconds(batch.failed_at),
            expired_at=_seconds(batch.expired_at),
            cancelling_at=_seconds(batch.cancelling_at),
            cancelled_at=_seconds(batch.cancelled_at),
            request_counts=RequestCounts(
                total=batch.counts.total,
                completed=batch.counts.completed,
                failed=batch.counts.failed,
            ),
            usage=_usage(batch.usage),
            metadata=batch.metadata,
            tidegate=BatchExtension(models=batch.models, waiting_for=batch.waiting_for),
        )
    )


def encode_model(name: str, *, created_at: float) -> bytes:
    """Return a model as JSON. `created_at` is the Unix time since which it has been offered."""
    return _encode(_model(name, created_at))


def encode_models(names: Sequence[str], *, created_at: float) -> bytes:
    """Return the list of all models as JSON."""
    models = tuple([_model(name, created_at) for name in names])
    return _encode(ModelList(object="list", data=models))


def encode_page(
    items: Sequence[bytes], *, first_id: str | None, last_id: str | None, has_more: bool
) -> bytes:
    """Return a page around objects that are encoded already, in their order."""
    assert (first_id is None) == (last_id is None) == (not items), "ids name the ends of the page"
    data = msgspec.Raw(b"[" + b",".join(items) + b"]")
    return _encode(
        _Page(object="list", data=data, first_id=first_id, last_id=last_id, has_more=has_more)
    )


def encode_error(*, message: str, kind: str, param: str | None, code: str | None) -> bytes:
    """Return an error as JSON. `kind` is the member `type`."""
    return _encode(
        ErrorReply(error=ErrorDetails(message=message, type=kind, param=param, code=code))
    )


def object_schemas(reference: str) -> Mapping[str, Schema]:
    """Return the JSON Schema of every object by its name; `reference` is a template with {name}."""
    replies = (DeletedFile, FilePage, BatchPage, ModelList, ErrorReply)
    return msgspec.json.schema_components(replies, ref_template=reference)[1]


def _errors(problems: tuple[Problem, ...]) -> BatchErrors | None:
    if not problems:
        return None
    data = tuple(
        BatchError(
            code=problem.code, message=problem.message, param=problem.param, line=problem.line
        )
        for problem in problems
    )
    return BatchErrors(object="list", data=data)


def _usage(usage: Usage) -> BatchUsage:
    return BatchUsage(
        input_tokens=usage.input_tokens,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cached_tokens),
        output_tokens=usage.output_tokens,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=usage.reasoning_tokens),
        total_tokens=usage.total_tokens,
    )


def _model(name: str, created_at: float) -> OpenAIModel:
    return OpenAIModel(id=name, object="model", created=int(created_at), owned_by="tidegate")


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)
