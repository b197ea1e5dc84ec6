"""What a result line says, in cells of a table."""

import json
from dataclasses import dataclass

import msgspec

from tidegate.wire.results import read_body

HTTP_REFUSED = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One result: `response` is the text of the answer, or its JSON where it has none."""

    custom_id: str
    response: str | None
    error: str | None
    input_tokens: int | None
    output_tokens: int | None


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


def read_answer(raw: bytes) -> Answer:
    """Read a result line of ours."""
    try:
        line = _decode(raw)
        body: object = None if line.response is None else msgspec.json.decode(line.response.body)
    except (msgspec.MsgspecError, RecursionError):
        line, body = _read_slowly(raw)
    if line.response is None:
        assert line.error is not None, "a result line has a response or an error"
        return _failed(line.custom_id, f"{line.error.code}: {line.error.message}")
    if line.response.status_code >= HTTP_REFUSED:
        return _failed(line.custom_id, f"{line.response.status_code}: {_refusal(body)}")
    read = read_body(bytes(line.response.body))
    usage = None if read is None or not read.usage.total_tokens else read.usage
    return Answer(
        custom_id=_clean(line.custom_id),
        response=_clean(text_of(body)),
        error=None,
        input_tokens=None if usage is None else usage.input_tokens,
        output_tokens=None if usage is None else usage.output_tokens,
    )


def text_of(body: object) -> str:
    """Return the text of an answer; what has none comes as JSON."""
    found = _text(body)
    return json.dumps(body, ensure_ascii=False) if found is None else found


def _text(body: object) -> str | None:
    choice = _first(body, "choices")
    message = _member(choice, "message")
    for found in (_member(message, "content"), _member(choice, "text")):
        if isinstance(found, str):
            return found
    embedding = _member(_first(body, "data"), "embedding")
    if embedding is not None:
        return json.dumps(embedding)
    return _output_text(body)


def _output_text(body: object) -> str | None:
    """Return the joined texts of a reply of the Responses API."""
    output = _member(body, "output")
    if not isinstance(output, list):
        return None
    texts = [
        _member(part, "text")
        for item in output
        for part in (_member(item, "content") or [])  # type: ignore[attr-defined]  # a list or none
        if _member(part, "type") == "output_text"
    ]
    return "".join(text for text in texts if isinstance(text, str)) if texts else None


def _first(body: object, name: str) -> object:
    items = _member(body, name)
    return items[0] if isinstance(items, list) and items else None


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None


def _refusal(body: object) -> str:
    message = _member(_member(body, "error"), "message")
    return message if isinstance(message, str) else json.dumps(body, ensure_ascii=False)


def _failed(custom_id: str, error: str) -> Answer:
    return Answer(
        custom_id=_clean(custom_id),
        response=None,
        error=_clean(error),
        input_tokens=None,
        output_tokens=None,
    )


def _read_slowly(raw: bytes) -> tuple[_Line, object]:
    # Lone surrogates are JSON by its grammar, and only the standard library takes them.
    tree = json.loads(raw)
    response, error = tree["response"], tree["error"]
    line = _Line(
        custom_id=tree["custom_id"],
        response=None
        if response is None
        else _Response(
            status_code=response["status_code"],
            body=msgspec.Raw(json.dumps(response["body"]).encode()),
        ),
        error=None if error is None else _Error(code=error["code"], message=error["message"]),
    )
    return line, None if response is None else response["body"]


def _clean(text: str) -> str:
    """Return text that can be written as UTF-8; a lone surrogate becomes a question mark."""
    return text.encode("utf-8", "replace").decode()
