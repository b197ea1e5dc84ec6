"""The OpenAPI document of the public API: its paths, what they take, and what they return.

The objects are derived from the structs that encode them (`tidegate.wire.objects`). The rest is
written here by hand; tests compare it with the routes and the error statuses that are served.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate import __version__
from tidegate.api.settings import Settings
from tidegate.application.batches import BATCHES_DEFAULT, BATCHES_MAX, FILE_ID_CHARACTERS_MAX
from tidegate.application.files import FILES_MAX
from tidegate.application.rules import KEY_CHARACTERS_MAX, PAIRS_MAX, VALUE_CHARACTERS_MAX
from tidegate.application.settings import EXPIRY_SECONDS_MAX, EXPIRY_SECONDS_MIN
from tidegate.domain.file import UPLOAD_PURPOSES, Purpose
from tidegate.wire.objects import Schema, object_schemas

JSON = "application/json"
# Statuses that any request may get, because of its headers, a bug, or an unreachable ledger.
ANYWHERE = (400, 401, 403, 415, 431, 500, 503)
_CREATE = (408, 409, 413, 507)
_REFERENCE = "#/components/schemas/{name}"
_MEANINGS = {
    304: "The client has the current content.",
    400: "The request is not acceptable; `param` names the field.",
    401: "The request has no valid key.",
    403: "The request comes from a web page of another site.",
    404: "There is no such object, or it belongs to another tenant.",
    408: "The body stopped arriving.",
    409: "The state of the object does not allow this.",
    412: "The file is in another state.",
    413: "A size limit is exceeded.",
    415: "The body is compressed.",
    416: "The file has no byte of this range.",
    431: "The headers are too large.",
    500: "The server has a bug.",
    503: "The ledger or a model server did not answer; try again soon.",
    507: "The server has no space left.",
}
_BYTES: Schema = {"type": "string", "format": "binary"}
_TEXT: Schema = {"type": "string"}
_ANCHOR: Schema = {"type": "string", "const": "created_at"}
_EXPIRY_SECONDS: Schema = {
    "type": "integer",
    "minimum": EXPIRY_SECONDS_MIN,
    "maximum": EXPIRY_SECONDS_MAX,
}
_UPLOAD: Schema = {
    "type": "object",
    "properties": {
        "purpose": {"type": "string", "enum": [purpose.value for purpose in UPLOAD_PURPOSES]},
        "file": {**_BYTES, "description": "Any bytes; for the purpose `batch`, JSON Lines."},
        "expires_after[anchor]": _ANCHOR,
        "expires_after[seconds]": _EXPIRY_SECONDS,
    },
    "required": ["purpose", "file"],
    "dependentRequired": {
        "expires_after[anchor]": ["expires_after[seconds]"],
        "expires_after[seconds]": ["expires_after[anchor]"],
    },
}


@dataclass(frozen=True, slots=True)
class _Operation:
    """One method of one path; `returns` names the object of status 200, or is None for bytes."""

    route: str
    name: str
    returns: str | None
    summary: str
    statuses: Sequence[int] = (404,)
    parameters: Sequence[Schema] = ()
    body: Schema | None = None
    responses: Mapping[str, object] = field(default_factory=dict)

    def render(self) -> Schema:
        """Return the Operation Object of the document."""
        statuses = sorted({*ANYWHERE, *self.statuses})
        failures = {str(status): _failure(status) for status in statuses}
        parameters = [*map(_path_parameter, re.findall(r"{(\w+)}", self.route)), *self.parameters]
        return {
            "operationId": self.name,
            "summary": self.summary,
            "responses": {"200": _success(self.returns), **self.responses, **failures},
            **({"parameters": parameters} if parameters else {}),
            **({"requestBody": {"required": True, "content": self.body}} if self.body else {}),
        }


def document(settings: Settings) -> Schema:
    """Return the OpenAPI 3.1 document of an API with these settings."""
    secured: Schema = {"security": [{"key": []}]} if settings.keys else {}
    paths: dict[str, dict[str, Schema]] = {}
    for operation in (*_file_operations(), *_batch_and_model_operations(settings)):
        method, path = operation.route.split(" ")
        paths.setdefault(path, {})[method] = operation.render()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tidegate",
            "version": __version__,
            "description": "OpenAI's files and batches on self-hosted models.",
        },
        "servers": [{"url": "/"}],
        **secured,
        "paths": paths,
        "components": {
            "schemas": object_schemas(_REFERENCE),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _file_operations() -> Sequence[_Operation]:
    order: Schema = {"type": "string", "enum": ["asc", "desc"], "default": "desc"}
    purpose: Schema = {"type": "string", "enum": [purpose.value for purpose in Purpose]}
    return [
        _Operation(
            "post /v1/files",
            "createFile",
            "OpenAIFile",
            "Upload a file; it survives power loss once this has answered.",
            _CREATE,
            body={"multipart/form-data": {"schema": _UPLOAD}},
        ),
        _Operation(
            "get /v1/files",
            "listFiles",
            "FilePage",
            "List files, page by page.",
            parameters=[
                *_page_parameters(FILES_MAX, FILES_MAX),
                _parameter("order", order, "Newest first, unless `asc`."),
                _parameter("purpose", purpose, "Only files of this purpose."),
            ],
        ),
        _Operation(
            "get /v1/files/{file_id}", "retrieveFile", "OpenAIFile", "Read the metadata of a file."
        ),
        _Operation(
            "delete /v1/files/{file_id}",
            "deleteFile",
            "DeletedFile",
            "Delete a file; a batch that needs it keeps its bytes until it has ended.",
            (404, 409),
        ),
        _Operation(
            "get /v1/files/{file_id}/content",
            "downloadFile",
            None,
            "Download a file, whole or a range; results also while their batch runs.",
            (404, 412, 416),
            parameters=[
                _header("Range", "One range of bytes; several are ignored."),
                _header("If-Range", "The entity tag for which the range is valid."),
                _header("If-Match", "The accepted entity tags; the status is 412 for any other."),
                _header("If-None-Match", "The entity tags that the client has."),
            ],
            responses={"206": _success(None), "304": {"description": _MEANINGS[304]}},
        ),
    ]


def _batch_and_model_operations(settings: Settings) -> Sequence[_Operation]:
    key: Schema = {"type": "string", "pattern": "^[\\x21-\\x7e]{1,255}$"}
    return [
        _Operation(
            "post /v1/batches",
            "createBatch",
            "OpenAIBatch",
            "Create a batch; it survives power loss once this has answered.",
            _CREATE,
            parameters=[_header("Idempotency-Key", "A repeated key returns the same batch.", key)],
            body={JSON: {"schema": _create_request(settings)}},
        ),
        _Operation(
            "get /v1/batches",
            "listBatches",
            "BatchPage",
            "List batches, newest first, page by page.",
            parameters=_page_parameters(BATCHES_MAX, BATCHES_DEFAULT),
        ),
        _Operation("get /v1/batches/{batch_id}", "retrieveBatch", "OpenAIBatch", "Read a batch."),
        _Operation(
            "post /v1/batches/{batch_id}/cancel",
            "cancelBatch",
            "OpenAIBatch",
            "Cancel a batch; requests in flight may still complete.",
            (404, 409, 507),
        ),
        _Operation("get /v1/models", "listModels", "ModelList", "List the models.", ()),
        _Operation(
            "get /v1/models/{model}",
            "retrieveModel",
            "OpenAIModel",
            "Read a model; its name may contain slashes.",
        ),
    ]


def _create_request(settings: Settings) -> Schema:
    """Return the schema of the body that creates a batch. Other members are ignored."""
    shortest, longest = settings.batch_api.window_seconds_min, settings.batch_api.window_seconds_max
    return {
        "type": "object",
        "properties": {
            "input_file_id": _bounded_text(FILE_ID_CHARACTERS_MAX),
            "endpoint": {"type": "string", "enum": list(settings.batch_api.endpoints)},
            "completion_window": {
                "type": "string",
                "minLength": 2,
                "pattern": "^([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$",
                "examples": ["24h"],
                "description": "`24h`, or another duration in days, hours, minutes and seconds "
                f"from {shortest} to {longest} seconds.",
            },
            "metadata": {
                "type": ["object", "null"],
                "maxProperties": PAIRS_MAX,
                "propertyNames": _bounded_text(KEY_CHARACTERS_MAX),
                "additionalProperties": _bounded_text(VALUE_CHARACTERS_MAX),
            },
            "output_expires_after": {
                "type": ["object", "null"],
                "properties": {"anchor": _ANCHOR, "seconds": _EXPIRY_SECONDS},
                "required": ["anchor", "seconds"],
            },
        },
        "required": ["input_file_id", "endpoint", "completion_window"],
    }


def _bounded_text(characters_max: int) -> Schema:
    return {"type": "string", "maxLength": characters_max, "pattern": "^[^\\u0000]*$"}


def _path_parameter(name: str) -> Schema:
    return {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}


def _parameter(name: str, schema: Schema, description: str) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description}


def _header(name: str, description: str, schema: Schema = _TEXT) -> Schema:
    return {"name": name, "in": "header", "schema": schema, "description": description}


def _page_parameters(limit_max: int, default: int) -> Sequence[Schema]:
    limit: Schema = {"type": "integer", "minimum": 1, "maximum": limit_max, "default": default}
    return [
        _parameter("after", _TEXT, "The id after which the page begins."),
        _parameter("limit", limit, "The largest number of objects on the page."),
    ]


def _success(name: str | None) -> Schema:
    if name is None:
        content = {"application/octet-stream": {"schema": _BYTES}}
        return {"description": "The bytes.", "content": content}
    return {"description": "The object.", "content": _json_content(name)}


def _failure(status: int) -> Schema:
    return {"description": _MEANINGS[status], "content": _json_content("ErrorReply")}


def _json_content(name: str) -> Schema:
    return {JSON: {"schema": {"$ref": _REFERENCE.format(name=name)}}}
