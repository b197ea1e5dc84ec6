"""Split a batch file into lines, and validate them one by one."""

import functools
import re
from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from tidegate.domain.batch import Problem
from tidegate.wire import prompts
from tidegate.wire.lines import (
    Line,
    PlainBody,
    RawBody,
    RawLine,
    decode_body,
    decode_chat_body,
    decode_line,
    decode_plain_body,
    decode_text,
)

CUSTOM_ID_CHARACTERS_MAX = 512
MODEL_CHARACTERS_MAX = 256
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BOM = b"\xef\xbb\xbf"
_CHAT: Final = "/v1/chat/completions"
_STREAMS = {_CHAT: "Chat Completions: "}
# A pair of surrogates, a lone surrogate, or any other escape. The order matters: each escape must
# match once.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
    rb"|\\."
)
_LONE_BYTES = 6
_BLANK = b" \t\r\n"
# The head of a line as nearly all clients write it, up to its body. It has only one meaning.
_S = rb"[ \t\r]*"
_PLAIN_HEAD = (
    rb"\{" + _S + rb'"custom_id"' + _S + rb":" + _S + rb'("[^"\\\x00-\x1f]{1,512}")' + _S + rb","
    + _S + rb'"method"' + _S + rb":" + _S + rb'"POST"' + _S + rb","
    + _S + rb'"url"' + _S + rb":" + _S + rb'"%b"' + _S + rb","
    + _S + rb'"body"' + _S + rb":" + _S + rb"(?=\{)"
)  # fmt: skip
_ENDPOINTS_MAX = 32


class LineSplitter:
    """Splits a stream of bytes into physical lines, numbered from 1.

    A byte-order mark at the start, carriage returns before a newline, and blank lines are dropped
    (but blank lines are counted). A line longer than `line_bytes_max` is reported as None and is
    never held whole.

    Attributes:
        offset: where the last yielded line begins in the stream.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self.offset = 0
        self._line_bytes_max = line_bytes_max
        self._tail = bytearray()
        self._number = 0
        self._oversize = False
        self._started = False
        # The place of the next bytes in the stream, and of the beginning of their line.
        self._position = 0
        self._start = 0

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Split the next bytes; yield each line that they complete."""
        if not self._started:
            chunk = bytes(self._tail) + chunk
            self._tail.clear()
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._tail += chunk
                return
            self._started = True
            if chunk.startswith(_BOM):
                chunk = chunk[len(_BOM) :]
                self._position = self._start = len(_BOM)
        pieces = chunk.split(b"\n")
        rest = pieces.pop()
        if pieces:
            # Lengths come first: of a line that is too long, the tail holds only a part.
            lengths = list(map(len, pieces))
            pieces[0] = bytes(self._tail) + pieces[0]
            self._tail.clear()
            yield from self._lines(pieces, lengths)
        self._tail += rest
        self._position += len(chunk)
        if len(self._tail) > self._line_bytes_max + 1:
            self._oversize = True
            self._tail.clear()

    def _lines(self, pieces: list[bytes], lengths: list[int]) -> Iterator[tuple[int, bytes | None]]:
        bound, position = self._line_bytes_max, self._position
        for piece, length in zip(pieces, lengths, strict=True):
            self._number += 1
            position += length + 1
            self.offset, self._start = self._start, position
            if (
                piece[:1] == b"{"
                and piece[-1:] == b"}"
                and len(piece) <= bound
                and not self._oversize
            ):
                yield self._number, piece
            else:
                yield from self._unusual_line(piece)

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the last line, if the stream did not end with a newline."""
        tail, self._tail = bytes(self._tail), bytearray()
        if not self._started:
            tail = tail.removeprefix(_BOM)
        if tail or self._oversize:
            self._number += 1
            self.offset = self._start
            yield from self._unusual_line(tail)

    def _unusual_line(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        oversize, self._oversize = self._oversize, False
        piece = piece.removesuffix(b"\r")
        if oversize or len(piece) > self._line_bytes_max:
            yield self._number, None
        elif piece and not piece.isspace():
            yield self._number, piece


class _InvalidLine(Exception):
    # Never leaves this module: it carries a Problem out of nested checks.
    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def read_line(number: int, raw: bytes, *, endpoint: str) -> Line | Problem:
    """Validate one physical line; return it ready to plan, or the first problem found."""
    line = _read_plain(number, raw, endpoint)
    if line is not None:
        return line
    try:
        return _read(number, raw, endpoint)
    except _InvalidLine as invalid:
        return Problem(code=invalid.code, message=invalid.message, line=number, param=invalid.param)


def oversize_problem(number: int, line_bytes_max: int) -> Problem:
    """Return the problem of a line that is too long."""
    return Problem(
        code="line_too_large",
        message=f"This line is larger than {line_bytes_max} bytes. Split it into several requests.",
        line=number,
    )


def without_lone_surrogates(raw: bytes) -> bytes:
    """Return the same JSON, of the same length, with escapes of lone surrogates replaced.

    The grammar of JSON permits them and Python's `json.dumps` writes them, but they are not valid
    text, so msgspec rejects them. Use the result for positions only, never for its bytes.
    """
    return _ESCAPES.sub(_replace_lone, raw)


def _replace_lone(match: re.Match[bytes]) -> bytes:
    escape = match.group()
    return b"\\ufffd" if len(escape) == _LONE_BYTES and escape[2] in b"dD" else escape


def _read_plain(number: int, raw: bytes, endpoint: str) -> Line | None:
    """Decode a valid line of the usual form in one pass; return None for any other line."""
    head = _plain_head(endpoint)(raw)
    if head is None or raw[-1:] != b"}":
        return None
    raw_body = raw[head.end() : -1]
    try:
        if not raw.isascii():
            raw.decode()
        chat = _plain_chat(raw_body) if endpoint == _CHAT else None
        model, prompt = _plain_body(raw_body, endpoint) if chat is None else chat
    except prompts.CANONICAL_ERRORS:
        return None
    if not (0 < len(model) <= MODEL_CHARACTERS_MAX and model.isprintable()):
        return None
    custom_id = head[1]
    return Line(
        number=number,
        custom_id=custom_id,
        name=custom_id[1:-1].decode(),
        model=model,
        body=raw_body if raw_body[-1:] == b"}" else raw_body.rstrip(_BLANK),
        prompt=prompt,
    )


@functools.lru_cache(_ENDPOINTS_MAX)
def _plain_head(endpoint: str) -> Callable[[bytes], re.Match[bytes] | None]:
    return re.compile(_PLAIN_HEAD % re.escape(endpoint.encode())).match


def _plain_chat(raw: bytes) -> tuple[str, bytes] | None:
    """Return model and sort key of a chat of plain messages, None for any other."""
    if len(raw) > prompts.PROMPT_BYTES_MAX:
        return None
    try:
        body = decode_chat_body(raw)
    except msgspec.ValidationError:
        return None
    if body.stream:
        return None
    return body.model, prompts.chat_sort_key(bytes(body.tools), body.messages)


def _plain_body(raw: bytes, endpoint: str) -> tuple[str, bytes]:
    body = decode_plain_body(raw)
    if body.stream or (body.messages is msgspec.UNSET and endpoint == _CHAT):
        raise msgspec.ValidationError
    return body.model, _plain_prompt(body)


def _plain_prompt(body: PlainBody) -> bytes:
    messages, tools = body.messages, bytes(body.tools)
    return prompts.sort_key(
        prompts.canonical_raw(tools) if tools else b"",
        b"" if body.instructions is None else prompts.canonical(body.instructions),
        b"" if messages is msgspec.UNSET else prompts.canonical_messages(messages),
        b"" if body.prompt is None else prompts.canonical(body.prompt),
        b"" if body.input is None else prompts.canonical(body.input),
    )


def _read(number: int, raw: bytes, endpoint: str) -> Line:
    try:
        if not raw.isascii():
            raw.decode("utf-8")
        line = decode_line(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        return _read_with_lone_surrogates(number, raw, endpoint, exc)
    return _checked(number, line, endpoint)


def _read_with_lone_surrogates(number: int, raw: bytes, endpoint: str, error: Exception) -> Line:
    """Decode a line that may contain lone surrogates, and keep the bytes that the user wrote."""
    replaced = without_lone_surrogates(raw)
    if replaced == raw or isinstance(error, UnicodeDecodeError):
        raise _unreadable(error)
    try:
        line = _checked(number, decode_line(replaced), endpoint)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise _unreadable(exc) from exc
    if (
        line.custom_id not in raw
        or line.model.encode() not in raw
        or replaced.count(line.body) != 1
    ):
        raise _InvalidLine(
            "invalid_value", "Only the texts of a body may hold lone surrogates.", "custom_id"
        )
    start = replaced.index(line.body)
    return msgspec.structs.replace(line, body=raw[start : start + len(line.body)])


def _unreadable(error: Exception | None) -> _InvalidLine:
    message = "This line is not parseable as valid JSON."
    if isinstance(error, RecursionError):
        message = "This line is nested too deeply to be read: flatten it."
    return _InvalidLine("invalid_json_line", message, None)


def _checked(number: int, line: RawLine, endpoint: str) -> Line:
    name = _text(line.custom_id, "custom_id")
    if not 0 < len(name) <= CUSTOM_ID_CHARACTERS_MAX:
        raise _InvalidLine(
            "invalid_value",
            f"Invalid 'custom_id': expected 1 to {CUSTOM_ID_CHARACTERS_MAX} characters.",
            "custom_id",
        )
    if _text(line.method, "method") != "POST":
        raise _InvalidLine(
            "invalid_method", "Invalid value for 'method': only 'POST' is run.", "method"
        )
    if _text(line.url, "url") != endpoint:
        raise _InvalidLine(
            "invalid_url",
            "The URL provided for this request does not match the batch endpoint.",
            "url",
        )
    if line.body is msgspec.UNSET:
        raise _missing("body")
    return _with_body(number, bytes(_raw(line.custom_id)), name, bytes(line.body), endpoint)


def _with_body(number: int, custom_id: bytes, name: str, raw: bytes, endpoint: str) -> Line:
    try:
        body = decode_body(raw)
    except (msgspec.MsgspecError, RecursionError):
        raise _InvalidLine(
            "invalid_type", "Invalid type for 'body': expected an object.", "body"
        ) from None
    if body.model is msgspec.UNSET or bytes(body.model) in {b"null", b'""'}:
        raise _InvalidLine("invalid_request", "Model parameter is required.", "body.model")
    model = _text(body.model, "body.model")
    if len(model) > MODEL_CHARACTERS_MAX or _CONTROL.search(model):
        raise _InvalidLine(
            "invalid_value",
            f"Invalid 'body.model': expected at most {MODEL_CHARACTERS_MAX} characters, "
            "none of them a control character.",
            "body.model",
        )
    if body.stream is not msgspec.UNSET and bytes(body.stream) not in {b"false", b"null"}:
        raise _InvalidLine(
            "streaming_unsupported",
            f"{_STREAMS.get(endpoint, '')}Streaming is not supported in the Batch API.",
            "body.stream",
        )
    if endpoint == _CHAT and not bytes(body.messages):
        raise _InvalidLine("invalid_request", "Messages parameter is required.", "body.messages")
    return Line(
        number=number, custom_id=custom_id, name=name, model=model, body=raw, prompt=_prompt(body)
    )


def _prompt(body: RawBody) -> bytes:
    return prompts.sort_key(
        prompts.canonical_raw(bytes(body.tools)),
        prompts.canonical_raw(bytes(body.instructions)),
        prompts.canonical_raw_messages(bytes(body.messages)),
        prompts.canonical_raw(bytes(body.prompt)),
        prompts.canonical_raw(bytes(body.input)),
    )


def _text(raw: msgspec.Raw | msgspec.UnsetType, param: str) -> str:
    if raw is msgspec.UNSET:
        raise _missing(param)
    try:
        return decode_text(raw)
    except msgspec.MsgspecError:
        raise _InvalidLine(
            "invalid_type", f"Invalid type for '{param}': expected a string.", param
        ) from None


def _raw(raw: msgspec.Raw | msgspec.UnsetType) -> msgspec.Raw:
    assert raw is not msgspec.UNSET
    return raw


def _missing(param: str) -> _InvalidLine:
    return _InvalidLine(
        "missing_required_parameter", f"Missing required parameter: '{param}'.", param
    )
