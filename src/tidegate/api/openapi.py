"""The OpenAPI document of the public API: its paths, what they take, and what they answer.

It is written by hand, from the same tables and bounds that serve requests, and tests hold it to
them: the routes to `routes_of`, the statuses to the table of errors, the schemas to the encoders.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate import __version__
from tidegate.api.settings import Settings
from tidegate.desk.create import FILE_ID_CHARACTERS_MAX
from tidegate.desk.listing import BATCHES_DEFAULT, BATCHES_MAX, FILES_MAX
from tidegate.desk.metadata import KEY_CHARACTERS_MAX, PAIRS_MAX, VALUE_CHARACTERS_MAX
from tidegate.desk.settings import EXPIRY_SECONDS_MAX, EXPIRY_SECONDS_MIN
from tidegate.domain.file import Purpose
from tidegate.wire.schemas import SCHEMAS, TEXT, Schema, batch_request, reference, upload_form

JSON = "application/json"
# What any request may meet: a bad head, no key, a stranger's page, a compressed body, a head that
# is too large, a bug of ours, a ledger that does not answer.
ANYWHERE = (400, 401, 403, 415, 431, 500, 503)
_BODY = (408, 413)
_UNKNOWN = (404,)
_MEANINGS = {
    304: "The content is what the client has.",
    400: "The request is not acceptable as it stands; `param` names the field.",
    401: "Keys are set, and none of them came with the request.",
    403: "A web page of another site asks.",
    404: "There is no such object, or it is somebody else's.",
    408: "The body stopped coming.",
    409: "The object's state does not allow it.",
    412: "The file is in another state.",
    413: "A bound on size would be passed.",
    415: "The body is compressed.",
    416: "No byte of the range exists.",
    431: "The headers are too large.",
    500: "A bug of the server's.",
    503: "The ledger or a model server did not answer; try again soon.",
    507: "The server has no room left.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Operation:
    """One method of one path. `found` is the schema of the answer 200, None for raw bytes."""

    name: str
    summary: str
    found: str | None
    statuses: Sequence[int] = ()
    parameters: Sequence[Mapping[str, object]] = ()
    body: Mapping[str, object] | None = None
    more: Mapping[str, object] = field(default_factory=dict)

    def described(self) -> Mapping[str, object]:
        """Return it as the document holds it."""
        answers: dict[str, object] = {"200": _success(self.found), **self.more}
        for status in sorted({*ANYWHERE, *self.statuses}):
            answers[str(status)] = _failure(status)
        told: dict[str, object] = {
            "operationId": self.name,
            "summary": self.summary,
            "responses": answers,
        }
        if self.parameters:
            told["parameters"] = list(self.parameters)
        if self.body is not None:
            told["requestBody"] = {"required": True, "content": self.body}
        return told


def document(settings: Settings) -> Mapping[str, object]:
    """Return the OpenAPI 3.1 document of an API with these settings."""
    secured: Mapping[str, object] = {"security": [{"key": []}]} if settings.keys else {}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate",
            "version": __version__,
            "description": "OpenAI's files and batches on self-hosted models.",
        },
        "servers": [{"url": "/"}],
        **secured,
        "paths": {
            "/v1/files": {"post": _upload(), "get": _list_files()},
            "/v1/files/{file_id}": {"get": _get_file(), "delete": _delete_file()},
            "/v1/files/{file_id}/content": {"get": _content()},
            "/v1/batches": {"post": _create(settings), "get": _list_batches()},
            "/v1/batches/{batch_id}": {"get": _get_batch()},
            "/v1/batches/{batch_id}/cancel": {"post": _cancel()},
            "/v1/models": {"get": _list_models()},
            "/v1/models/{model}": {"get": _get_model()},
        },
        "components": {
            "schemas": dict(SCHEMAS),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _upload() -> Mapping[str, object]:
    form = upload_form(seconds_min=EXPIRY_SECONDS_MIN, seconds_max=EXPIRY_SECONDS_MAX)
    return _Operation(
        name="createFile",
        summary="Upload a file; it survives power loss once this has answered.",
        found="File",
        statuses=(*_BODY, 409, 507),
        body={"multipart/form-data": {"schema": form}},
    ).described()


def _list_files() -> Mapping[str, object]:
    order: Schema = {"type": "string", "enum": ["asc", "desc"], "default": "desc"}
    purpose: Schema = {"type": "string", "enum": [purpose.value for purpose in Purpose]}
    return _Operation(
        name="listFiles",
        summary="List files, page by page.",
        found="FilePage",
        statuses=_UNKNOWN,
        parameters=[
            *_page(FILES_MAX, FILES_MAX),
            _asked("order", order, "Newest first, unless `asc`."),
            _asked("purpose", purpose, "Only files of this purpose."),
        ],
    ).described()


def _get_file() -> Mapping[str, object]:
    return _Operation(
        name="retrieveFile",
        summary="Look at a file.",
        found="File",
        statuses=_UNKNOWN,
        parameters=[_step("file_id")],
    ).described()


def _delete_file() -> Mapping[str, object]:
    return _Operation(
        name="deleteFile",
        summary="Delete a file; a batch that needs it keeps its bytes until it has ended.",
        found="DeletedFile",
        statuses=(*_UNKNOWN, 409),
        parameters=[_step("file_id")],
    ).described()


def _content() -> Mapping[str, object]:
    heads = {
        "Range": "One range of bytes; several are passed over.",
        "If-Range": "The entity tag that permits the range.",
        "If-Match": "The entity tags of the state that is wanted; else the answer is 412.",
        "If-None-Match": "The entity tags that the client has.",
    }
    return _Operation(
        name="downloadFile",
        summary="The bytes of a file, whole or a range; results also while their batch runs.",
        found=None,
        statuses=(*_UNKNOWN, 412, 416),
        parameters=[
            _step("file_id"),
            *[_asked(name, TEXT, words, where="header") for name, words in heads.items()],
        ],
        more={"206": _success(None), "304": {"description": _MEANINGS[304]}},
    ).described()


def _create(settings: Settings) -> Mapping[str, object]:
    schema = batch_request(
        endpoints=settings.desk.endpoints,
        id_characters_max=FILE_ID_CHARACTERS_MAX,
        metadata_pairs_max=PAIRS_MAX,
        metadata_key_characters_max=KEY_CHARACTERS_MAX,
        metadata_value_characters_max=VALUE_CHARACTERS_MAX,
        expiry_seconds_min=EXPIRY_SECONDS_MIN,
        expiry_seconds_max=EXPIRY_SECONDS_MAX,
        window_seconds_min=settings.desk.window_seconds_min,
        window_seconds_max=settings.desk.window_seconds_max,
    )
    key: Schema = {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"}
    return _Operation(
        name="createBatch",
        summary="Create a batch; it survives power loss once this has answered.",
        found="Batch",
        statuses=(*_BODY, 409, 507),
        parameters=[
            _asked("Idempotency-Key", key, "Asked again, the same batch answers.", where="header")
        ],
        body={JSON: {"schema": schema}},
    ).described()


def _list_batches() -> Mapping[str, object]:
    return _Operation(
        name="listBatches",
        summary="List batches, newest first, page by page.",
        found="BatchPage",
        statuses=_UNKNOWN,
        parameters=_page(BATCHES_MAX, BATCHES_DEFAULT),
    ).described()


def _get_batch() -> Mapping[str, object]:
    return _Operation(
        name="retrieveBatch",
        summary="Look at a batch.",
        found="Batch",
        statuses=_UNKNOWN,
        parameters=[_step("batch_id")],
    ).described()


def _cancel() -> Mapping[str, object]:
    return _Operation(
        name="cancelBatch",
        summary="Cancel a batch; what is in flight may still land.",
        found="Batch",
        statuses=(*_UNKNOWN, 409, 507),
        parameters=[_step("batch_id")],
    ).described()


def _list_models() -> Mapping[str, object]:
    return _Operation(
        name="listModels", summary="List the models behind the gateway.", found="ModelList"
    ).described()


def _get_model() -> Mapping[str, object]:
    return _Operation(
        name="retrieveModel",
        summary="Look at a model; its name may hold slashes.",
        found="Model",
        statuses=_UNKNOWN,
        parameters=[_step("model")],
    ).described()


def _step(name: str) -> Mapping[str, object]:
    schema = {"type": "string", "minLength": 1}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _asked(name: str, schema: Schema, words: str, *, where: str = "query") -> Mapping[str, object]:
    return {"name": name, "in": where, "schema": schema, "description": words}


def _page(most: int, default: int) -> Sequence[Mapping[str, object]]:
    limit: Schema = {"type": "integer", "minimum": 1, "maximum": most, "default": default}
    return [
        _asked("after", TEXT, "The id after which the page begins."),
        _asked("limit", limit, "How many objects the page may hold."),
    ]


def _success(name: str | None) -> Mapping[str, object]:
    if name is None:
        content = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
        return {"description": "The bytes.", "content": content}
    return {"description": "As asked.", "content": {JSON: {"schema": reference(name)}}}


def _failure(status: int) -> Mapping[str, object]:
    content = {JSON: {"schema": reference("Error")}}
    return {"description": _MEANINGS[status], "content": content}
