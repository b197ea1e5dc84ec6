"""The shapes of OpenAI's objects as JSON Schema (2020-12): what `tidegate openapi` publishes.

They stand beside the encoders, and a test holds each encoder to its schema: every member that is
written is named here, and every member named here is written.
"""

from collections.abc import Mapping, Sequence

from tidegate.domain.batch import Status
from tidegate.domain.file import UPLOAD_PURPOSES, Purpose

Schema = Mapping[str, object]

TEXT: Schema = {"type": "string"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
COUNT: Schema = {"type": "integer", "minimum": 0}
TIME: Schema = {"type": "integer", "minimum": 0, "description": "Unix seconds."}
TIME_OR_NULL: Schema = {"type": ["integer", "null"], "minimum": 0, "description": "Unix seconds."}


def constant(value: str) -> Schema:
    """Return the schema of one word."""
    return {"type": "string", "const": value}


def whole(members: Mapping[str, Schema], description: str = "") -> Schema:
    """Return the schema of an object with exactly these members."""
    told = {"description": description} if description else {}
    return {
        "type": "object",
        **told,
        "properties": dict(members),
        "required": list(members),
        "additionalProperties": False,
    }


def reference(name: str) -> Schema:
    """Return a reference to a schema of `SCHEMAS`."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Schema) -> Schema:
    """Return the schema of this or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def page(name: str) -> Schema:
    """Return the schema of a page of objects."""
    return whole(
        {
            "object": constant("list"),
            "data": {"type": "array", "items": reference(name)},
            "first_id": TEXT_OR_NULL,
            "last_id": TEXT_OR_NULL,
            "has_more": {"type": "boolean"},
        },
        "A page; the next comes after `last_id`.",
    )


_FILE = whole(
    {
        "id": TEXT,
        "object": constant("file"),
        "bytes": COUNT,
        "created_at": TIME,
        "expires_at": TIME_OR_NULL,
        "filename": TEXT,
        "purpose": {"type": "string", "enum": [purpose.value for purpose in Purpose]},
        "status": constant("processed"),
        "status_details": {"type": "null"},
    }
)

_PROBLEM = whole(
    {
        "code": TEXT,
        "message": TEXT,
        "param": TEXT_OR_NULL,
        "line": {"type": ["integer", "null"], "minimum": 1},
    }
)

_USAGE = whole(
    {
        "input_tokens": COUNT,
        "input_tokens_details": whole({"cached_tokens": COUNT}),
        "output_tokens": COUNT,
        "output_tokens_details": whole({"reasoning_tokens": COUNT}),
        "total_tokens": COUNT,
    }
)

_METADATA: Schema = {"type": "object", "additionalProperties": TEXT}

_BATCH = whole(
    {
        "id": TEXT,
        "object": constant("batch"),
        "endpoint": TEXT,
        "model": TEXT_OR_NULL,
        "errors": nullable(
            whole(
                {
                    "object": constant("list"),
                    "data": {"type": "array", "items": _PROBLEM, "minItems": 1},
                }
            )
        ),
        "input_file_id": TEXT,
        "completion_window": TEXT,
        "status": {"type": "string", "enum": [status.value for status in Status]},
        "output_file_id": TEXT_OR_NULL,
        "error_file_id": TEXT_OR_NULL,
        "created_at": TIME,
        "in_progress_at": TIME_OR_NULL,
        "expires_at": TIME,
        "finalizing_at": TIME_OR_NULL,
        "completed_at": TIME_OR_NULL,
        "failed_at": TIME_OR_NULL,
        "expired_at": TIME_OR_NULL,
        "cancelling_at": TIME_OR_NULL,
        "cancelled_at": TIME_OR_NULL,
        "request_counts": whole({"total": COUNT, "completed": COUNT, "failed": COUNT}),
        "usage": _USAGE,
        "metadata": nullable(_METADATA),
        "tidegate": whole(
            {"models": {"type": "array", "items": TEXT}, "waiting_for": TEXT_OR_NULL},
            "What Tidegate says beyond OpenAI's API.",
        ),
    }
)

_ERROR = whole(
    {
        "error": whole(
            {
                "message": TEXT,
                "type": {"type": "string", "enum": ["invalid_request_error", "server_error"]},
                "param": TEXT_OR_NULL,
                "code": TEXT_OR_NULL,
            }
        )
    }
)

_MODEL = whole(
    {
        "id": TEXT,
        "object": constant("model"),
        "created": TIME,
        "owned_by": constant("tidegate"),
    }
)

SCHEMAS: Mapping[str, Schema] = {
    "File": _FILE,
    "FilePage": page("File"),
    "DeletedFile": whole(
        {"id": TEXT, "object": constant("file"), "deleted": {"type": "boolean", "const": True}}
    ),
    "Batch": _BATCH,
    "BatchPage": page("Batch"),
    "Model": _MODEL,
    "ModelList": whole(
        {"object": constant("list"), "data": {"type": "array", "items": reference("Model")}}
    ),
    "Error": _ERROR,
}


def upload_form(*, seconds_min: int, seconds_max: int) -> Schema:
    """Return the schema of the form of an upload."""
    return {
        "type": "object",
        "properties": {
            "purpose": {"type": "string", "enum": [purpose.value for purpose in UPLOAD_PURPOSES]},
            "file": {
                "type": "string",
                "format": "binary",
                "description": "Any bytes; for the purpose `batch`, JSON Lines.",
            },
            "expires_after[anchor]": constant("created_at"),
            "expires_after[seconds]": _between(seconds_min, seconds_max),
        },
        "required": ["purpose", "file"],
        "dependentRequired": {
            "expires_after[anchor]": ["expires_after[seconds]"],
            "expires_after[seconds]": ["expires_after[anchor]"],
        },
    }


def batch_request(  # noqa: PLR0913 -- every bound once, by keyword
    *,
    endpoints: Sequence[str],
    id_characters_max: int,
    metadata_pairs_max: int,
    metadata_key_characters_max: int,
    metadata_value_characters_max: int,
    expiry_seconds_min: int,
    expiry_seconds_max: int,
    window_seconds_min: int,
    window_seconds_max: int,
) -> Schema:
    """Return the schema of the body that creates a batch. Other members are passed over."""
    metadata = {
        "type": ["object", "null"],
        "maxProperties": metadata_pairs_max,
        "propertyNames": _without_nul(metadata_key_characters_max),
        "additionalProperties": _without_nul(metadata_value_characters_max),
    }
    expiry = {
        "type": ["object", "null"],
        "properties": {
            "anchor": constant("created_at"),
            "seconds": _between(expiry_seconds_min, expiry_seconds_max),
        },
        "required": ["anchor", "seconds"],
    }
    return {
        "type": "object",
        "properties": {
            "input_file_id": _without_nul(id_characters_max),
            "endpoint": {"type": "string", "enum": list(endpoints)},
            "completion_window": {
                "type": "string",
                "minLength": 2,
                "pattern": "^([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$",
                "examples": ["24h"],
                "description": "`24h`, or another duration in days, hours, minutes and seconds "
                f"from {window_seconds_min} to {window_seconds_max} seconds.",
            },
            "metadata": metadata,
            "output_expires_after": expiry,
        },
        "required": ["input_file_id", "endpoint", "completion_window"],
    }


def _between(low: int, high: int) -> Schema:
    return {"type": "integer", "minimum": low, "maximum": high}


def _without_nul(characters_max: int) -> Schema:
    return {"type": "string", "maxLength": characters_max, "pattern": "^[^\\u0000]*$"}
