"""A result line as cells of a table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from tidegate.wire.jsonl import without_lone_surrogates
from tidegate.wire.results import read_reply_body

HTTP_REFUSED = 400
INTEGER_BOUND = 2**64  # Python refuses to write integers of thousands of digits.


@dataclass(frozen=True, slots=True, kw_only=True)
class ResultRow:
    """One result: `response` is the text of the answer, or its JSON if it has no text."""

    custom_id: str
    response: str | None = None
    error: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str
    message: str


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Line).decode


def read_result_row(raw: bytes) -> ResultRow:
    """Read a result line of ours, with any content from a model server."""
    try:
        line = _decode(raw)
    except msgspec.MsgspecError:
        # Lone surrogates are JSON by its grammar; the fast decoder refuses them.
        line = _decode(without_lone_surrogates(raw))
    if line.response is None:
        assert line.error is not None, "a result line has a response or an error"
        return _failed(line.custom_id, f"{line.error.code}: {line.error.message}")
    body = bytes(line.response.body)
    tree = _tree(body)
    if line.response.status_code >= HTTP_REFUSED:
        message = _refusal(tree) or _unchanged(body)
        return _failed(line.custom_id, f"{line.response.status_code}: {message}")
    text = _text(tree)
    read = read_reply_body(body)
    usage = None if read is None or not read.usage.total_tokens else read.usage
    return ResultRow(
        custom_id=line.custom_id,
        response=_unchanged(body) if text is None else text,
        input_tokens=None if usage is None else usage.input_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
    )


def _tree(body: bytes) -> object:
    """Return the value of a body; None if it is nested too deeply to be decoded."""
    try:
        found: object = msgspec.json.decode(body)
    except (msgspec.MsgspecError, RecursionError):
        return None
    return found


def _unchanged(body: bytes) -> str:
    # Decoding and encoding again would change long numbers, and could fail.
    return body.decode("utf-8", "replace")


def _text(body: object) -> str | None:
    choice = _first(body, "choices")
    message = _member(choice, "message")
    for found in (_member(message, "content"), _member(choice, "text")):
        if isinstance(found, str):
            return found
    embedding = _member(_first(body, "data"), "embedding")
    if isinstance(embedding, str) or _is_vector(embedding):
        return json.dumps(embedding)
    return _output_text(body)


def _is_vector(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, float) or (isinstance(item, int) and abs(item) < INTEGER_BOUND)
        for item in value
    )


def _output_text(body: object) -> str | None:
    """Return the joined texts of a reply of the Responses API."""
    texts = [
        _member(part, "text")
        for item in _list(_member(body, "output"))
        for part in _list(_member(item, "content"))
        if _member(part, "type") == "output_text"
    ]
    return "".join(text for text in texts if isinstance(text, str)) if texts else None


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else ()


def _first(body: object, name: str) -> object:
    items = _member(body, name)
    return items[0] if isinstance(items, list) and items else None


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _refusal(body: object) -> str | None:
    message = _member(_member(body, "error"), "message")
    return message if isinstance(message, str) else None


def _failed(custom_id: str, error: str) -> ResultRow:
    return ResultRow(custom_id=custom_id, error=error)
