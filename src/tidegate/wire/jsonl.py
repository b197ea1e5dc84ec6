"""Lines of a batch file: found in a stream of bytes, and judged one by one."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec

from tidegate.domain.batch import Problem

CUSTOM_ID_CHARACTERS_MAX = 512
MODEL_CHARACTERS_MAX = 256
SORT_KEY_BYTES_MAX = 16_384
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BOM = b"\xef\xbb\xbf"
_STREAMS = {"/v1/chat/completions": "Chat Completions: "}
# A pair of surrogates, a lone one, or any other escape: in this order, each escape is met once.
_ESCAPES = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
    rb"|\\."
)
_LONE_BYTES = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One sound request line. `custom_id` and `body` are the bytes that the user wrote.

    `prompt` orders lines so that neighbours share as much prompt as possible: what an engine
    renders first comes first, in a canonical spelling.
    """

    number: int
    custom_id: bytes
    name: str
    model: str
    body: bytes
    prompt: bytes


class LineSplitter:
    """Cuts a stream of bytes into physical lines, numbered from 1.

    A byte-order mark at the start, carriage returns before a newline and blank lines are dropped
    (blank ones are counted). A line above `line_bytes_max` is reported as None without ever being
    held whole.
    """

    def __init__(self, line_bytes_max: int) -> None:
        self._line_bytes_max = line_bytes_max
        self._tail = b""
        self._number = 0
        self._oversize = False
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[tuple[int, bytes | None]]:
        """Take the next bytes; yield each line that they complete."""
        if not self._started:
            chunk = self._tail + chunk
            self._tail = b""
            if len(chunk) < len(_BOM) and _BOM.startswith(chunk):
                self._tail = chunk
                return
            self._started = True
            chunk = chunk.removeprefix(_BOM)
        pieces = chunk.split(b"\n")
        pieces[0] = self._tail + pieces[0]
        self._tail = pieces.pop()
        for piece in pieces:
            yield from self._line(piece)
        if len(self._tail) > self._line_bytes_max + 1:
            self._oversize = True
            self._tail = b""

    def finish(self) -> Iterator[tuple[int, bytes | None]]:
        """Yield the last line, where the stream did not end with a newline."""
        tail, self._tail = self._tail, b""
        if not self._started:
            tail = tail.removeprefix(_BOM)
        if tail or self._oversize:
            yield from self._line(tail)

    def _line(self, piece: bytes) -> Iterator[tuple[int, bytes | None]]:
        self._number += 1
        oversize, self._oversize = self._oversize, False
        piece = piece.removesuffix(b"\r")
        if oversize or len(piece) > self._line_bytes_max:
            yield self._number, None
        elif piece and not piece.isspace():
            yield self._number, piece


class _RawLine(msgspec.Struct):
    custom_id: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    method: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    url: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _RawBody(msgspec.Struct):
    model: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    stream: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")


_decode_line = msgspec.json.Decoder(_RawLine).decode
_decode_body = msgspec.json.Decoder(_RawBody).decode
_decode_text = msgspec.json.Decoder(str).decode
_decode_any = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode


class _Unfit(Exception):
    # Never leaves this module: it carries a Problem out of nested checks.
    def __init__(self, code: str, message: str, param: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.param = param


def read_line(number: int, raw: bytes, *, endpoint: str) -> Line | Problem:
    """Judge one physical line; return it ready to plan, or the first thing wrong with it."""
    try:
        return _read(number, raw, endpoint)
    except _Unfit as unfit:
        return Problem(code=unfit.code, message=unfit.message, line=number, param=unfit.param)


def oversize_problem(number: int, line_bytes_max: int) -> Problem:
    """Return what is said of a line above the bound."""
    return Problem(
        code="line_too_large",
        message=f"This line is larger than {line_bytes_max} bytes. Split it into several requests.",
        line=number,
    )


def without_lone_surrogates(raw: bytes) -> bytes:
    """Return the same JSON at the same length with escapes of lone surrogates replaced.

    They are JSON by its grammar, and Python's `json.dumps` writes them, but no text: the fast
    decoder refuses them. Only places are read from the result, never the bytes themselves.
    """
    return _ESCAPES.sub(_softened, raw)


def _softened(match: re.Match[bytes]) -> bytes:
    escape = match.group()
    return b"\\ufffd" if len(escape) == _LONE_BYTES and escape[2] in b"dD" else escape


def _read(number: int, raw: bytes, endpoint: str) -> Line:
    try:
        if not raw.isascii():
            raw.decode("utf-8")
        line = _decode_line(raw)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as exc:
        return _read_softened(number, raw, endpoint, exc)
    return _checked(number, line, endpoint)


def _read_softened(number: int, raw: bytes, endpoint: str, error: Exception) -> Line:
    """Read a line that may hold lone surrogates, and keep the bytes that the user wrote."""
    soft = without_lone_surrogates(raw)
    if soft == raw or isinstance(error, UnicodeDecodeError):
        raise _unreadable(error)
    try:
        line = _checked(number, _decode_line(soft), endpoint)
    except (msgspec.MsgspecError, RecursionError) as exc:
        raise _unreadable(exc) from exc
    if line.custom_id not in raw or line.model.encode() not in raw or soft.count(line.body) != 1:
        raise _Unfit(
            "invalid_value", "Only the texts of a body may hold lone surrogates.", "custom_id"
        )
    start = soft.index(line.body)
    return replace(line, body=raw[start : start + len(line.body)])


def _unreadable(error: Exception | None) -> _Unfit:
    message = "This line is not parseable as valid JSON."
    if isinstance(error, RecursionError):
        message = "This line is nested too deeply to be read: flatten it."
    return _Unfit("invalid_json_line", message, None)


def _checked(number: int, line: _RawLine, endpoint: str) -> Line:
    name = _text(line.custom_id, "custom_id")
    if not 0 < len(name) <= CUSTOM_ID_CHARACTERS_MAX:
        raise _Unfit(
            "invalid_value",
            f"Invalid 'custom_id': expected 1 to {CUSTOM_ID_CHARACTERS_MAX} characters.",
            "custom_id",
        )
    if _text(line.method, "method") != "POST":
        raise _Unfit("invalid_method", "Invalid value for 'method': only 'POST' is run.", "method")
    if _text(line.url, "url") != endpoint:
        raise _Unfit(
            "invalid_url",
            "The URL provided for this request does not match the batch endpoint.",
            "url",
        )
    if line.body is msgspec.UNSET:
        raise _missing("body")
    return _with_body(number, bytes(_raw(line.custom_id)), name, bytes(line.body), endpoint)


def _with_body(number: int, custom_id: bytes, name: str, raw: bytes, endpoint: str) -> Line:
    try:
        body = _decode_body(raw)
    except (msgspec.MsgspecError, RecursionError):
        raise _Unfit(
            "invalid_type", "Invalid type for 'body': expected an object.", "body"
        ) from None
    if body.model is msgspec.UNSET or bytes(body.model) in {b"null", b'""'}:
        raise _Unfit("invalid_request", "Model parameter is required.", "body.model")
    model = _text(body.model, "body.model")
    if len(model) > MODEL_CHARACTERS_MAX or _CONTROL.search(model):
        raise _Unfit(
            "invalid_value",
            f"Invalid 'body.model': expected at most {MODEL_CHARACTERS_MAX} characters, "
            "none of them a control character.",
            "body.model",
        )
    if body.stream is not msgspec.UNSET and bytes(body.stream) not in {b"false", b"null"}:
        raise _Unfit(
            "streaming_unsupported",
            f"{_STREAMS.get(endpoint, '')}Streaming is not supported in the Batch API.",
            "body.stream",
        )
    if endpoint == "/v1/chat/completions" and not bytes(body.messages):
        raise _Unfit("invalid_request", "Messages parameter is required.", "body.messages")
    return Line(
        number=number,
        custom_id=custom_id,
        name=name,
        model=model,
        body=raw,
        prompt=_prompt(body),
    )


def _prompt(body: _RawBody) -> bytes:
    pieces = (body.tools, body.instructions, body.messages, body.prompt, body.input)
    text = b"\x1f".join(_canonical(bytes(piece)) for piece in pieces)
    return text[:SORT_KEY_BYTES_MAX]


def _canonical(raw: bytes) -> bytes:
    # Spelling only decides the order of the plan, so what can't be re-spelled may stay as it is.
    if not raw or len(raw) > 4 * SORT_KEY_BYTES_MAX:
        return raw[:SORT_KEY_BYTES_MAX]
    try:
        return _encode_sorted(_decode_any(raw))
    except (msgspec.MsgspecError, RecursionError, ValueError):
        return raw


def _text(raw: msgspec.Raw | msgspec.UnsetType, param: str) -> str:
    if raw is msgspec.UNSET:
        raise _missing(param)
    try:
        return _decode_text(raw)
    except msgspec.MsgspecError:
        raise _Unfit(
            "invalid_type", f"Invalid type for '{param}': expected a string.", param
        ) from None


def _raw(raw: msgspec.Raw | msgspec.UnsetType) -> msgspec.Raw:
    assert raw is not msgspec.UNSET
    return raw


def _missing(param: str) -> _Unfit:
    return _Unfit("missing_required_parameter", f"Missing required parameter: '{param}'.", param)
