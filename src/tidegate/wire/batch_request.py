"""The body of `POST /v1/batches`.

Decoding a body checks its shape: which members are missing, and which have the wrong type. Whether
the values are acceptable is checked later, when the batch is created.
"""

from dataclasses import dataclass

import msgspec

from tidegate.domain.errors import Refused

NAME_CHARACTERS_MAX = 64  # A message quotes at most this much of a name that the user chose.


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiresAfter:
    """When a file expires: `seconds` after `anchor`."""

    anchor: str
    seconds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRequest:
    """A request to create a batch."""

    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None = None
    output_expires_after: ExpiresAfter | None = None


class _Body(msgspec.Struct):
    input_file_id: object = msgspec.UNSET
    endpoint: object = msgspec.UNSET
    completion_window: object = msgspec.UNSET
    metadata: object = None
    output_expires_after: object = None


_decode_body = msgspec.json.Decoder(_Body).decode


def decode_batch_request(body: bytes) -> BatchRequest:
    """Decode the body of a create. Unknown members are ignored.

    Raises:
        Refused: it is not a JSON object, a member is missing, or one has the wrong type.
    """
    if body.lstrip()[:1] not in {b"{", b""}:
        raise Refused("The body of the request must be a JSON object.")
    try:
        raw = _decode_body(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise Refused(
            "The body of your request could not be parsed as JSON: send one JSON object."
        ) from exc
    return BatchRequest(
        input_file_id=_required_text("input_file_id", raw.input_file_id),
        endpoint=_required_text("endpoint", raw.endpoint),
        completion_window=_required_text("completion_window", raw.completion_window),
        metadata=_metadata(raw.metadata),
        output_expires_after=_expiry("output_expires_after", raw.output_expires_after),
    )


def missing_parameter(param: str) -> Refused:
    """Return the error for a required member that is missing."""
    return Refused(
        f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
    )


def wrong_type(param: str, expected: str, got: object) -> Refused:
    """Return the error for a member of the wrong JSON type; `expected` has its article."""
    return Refused(
        f"Invalid type for '{param}': expected {expected}, but got {_named(got)} instead.",
        param=param,
        code="invalid_type",
    )


def _required_text(param: str, value: object) -> str:
    if value is msgspec.UNSET:
        raise missing_parameter(param)
    if not isinstance(value, str):
        raise wrong_type(param, "a string", value)
    return value


def _metadata(value: object) -> dict[str, str] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_type("metadata", "an object", value)
    result: dict[str, str] = {}
    for key, item in value.items():
        if not isinstance(item, str):
            raise wrong_type(f"metadata.{_shortened(str(key))}", "a string", item)
        result[str(key)] = item
    return result


def _shortened(name: str) -> str:
    return name if len(name) <= NAME_CHARACTERS_MAX else f"{name[:NAME_CHARACTERS_MAX]}…"


def _expiry(param: str, value: object) -> ExpiresAfter | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise wrong_type(param, "an object", value)
    anchor = _required_text(f"{param}.anchor", value.get("anchor", msgspec.UNSET))
    seconds = value.get("seconds", msgspec.UNSET)
    if seconds is msgspec.UNSET:
        raise missing_parameter(f"{param}.seconds")
    if not isinstance(seconds, int) or isinstance(seconds, bool):
        raise wrong_type(f"{param}.seconds", "an integer", seconds)
    return ExpiresAfter(anchor=anchor, seconds=seconds)


def _named(value: object) -> str:
    """Return a JSON type with its article. Booleans come first: to Python they are integers."""
    names: list[tuple[type, str]] = [
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a decimal"),
        (str, "a string"),
        (list, "an array"),
        (dict, "an object"),
    ]
    return next((name for kind, name in names if isinstance(value, kind)), "null")
