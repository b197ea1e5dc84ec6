"""Build result lines around the bytes of the replies."""

import json
from typing import Final

import msgspec
import orjson

from tidegate.domain.usage import NO_USAGE, Usage
from tidegate.wire.reply_usage import ReplyUsage, decode_reply

MESSAGE_CHARACTERS_MAX = 2_000

# Numbers, because `in` first tries to convert its operand to one: bytes would be slower.
_LINE_FEED: Final = 0x0A
_CARRIAGE_RETURN: Final = 0x0D

_decode_raw = msgspec.json.Decoder(msgspec.Raw).decode


class ReplyBody:
    """A reply body that can be spliced: one line of valid JSON, and the tokens that it reports."""

    __slots__ = ("raw", "usage")

    def __init__(self, raw: bytes, usage: Usage) -> None:
        self.raw = raw
        self.usage = usage


def read_reply_body(raw: bytes) -> ReplyBody | None:
    """Return the reply body on one line, or None if it is not valid JSON in UTF-8.

    The bytes are unchanged, except that raw newlines between tokens are removed (a JSON string
    cannot contain any).
    """
    if not raw.isascii():
        try:
            raw.decode("utf-8")
        except UnicodeDecodeError:
            return None
    try:
        usage = _usage(decode_reply(raw).usage)
    except msgspec.ValidationError:
        if not _is_json(raw):
            return None
        usage = NO_USAGE
    except (msgspec.DecodeError, RecursionError):
        if not _is_json_at_length(raw):
            return None
        usage = NO_USAGE
    if _LINE_FEED in raw or _CARRIAGE_RETURN in raw:
        raw = raw.translate(None, b"\r\n")
    return ReplyBody(raw, usage)


def reply_line(
    request_id: str, custom_id: bytes, *, status: int, upstream_id: str, body: bytes
) -> bytes:
    """Return the line of a request with an HTTP reply; `body` is JSON on one line."""
    return b"".join(
        (
            b'{"id":"',
            request_id.encode(),
            b'","custom_id":',
            custom_id,
            b',"response":{"status_code":',
            str(status).encode(),
            b',"request_id":',
            orjson.dumps(upstream_id),
            b',"body":',
            body,
            b'},"error":null}\n',
        )
    )


def error_line(request_id: str, custom_id: bytes, *, code: str, message: str) -> bytes:
    """Return the line of a request without an HTTP reply."""
    return b"".join(
        (
            b'{"id":"',
            request_id.encode(),
            b'","custom_id":',
            custom_id,
            b',"response":null,"error":{"code":',
            orjson.dumps(code),
            b',"message":',
            orjson.dumps(message[:MESSAGE_CHARACTERS_MAX]),
            b"}}\n",
        )
    )


def quoted_in_error(raw: bytes, status: int) -> bytes:
    """Return an error body as OpenAI has it, which quotes a reply that is not JSON."""
    text = raw[: 4 * MESSAGE_CHARACTERS_MAX].decode("utf-8", "replace")[:MESSAGE_CHARACTERS_MAX]
    return orjson.dumps(
        {
            "error": {
                "message": text or f"The upstream answered {status} with an empty body.",
                "type": "upstream_error",
                "param": None,
                "code": None,
            }
        }
    )


def _usage(usage: ReplyUsage | None) -> Usage:
    if usage is None:
        return NO_USAGE
    read = usage.input_tokens_details or usage.prompt_tokens_details
    wrote = usage.output_tokens_details or usage.completion_tokens_details
    return Usage(
        input_tokens=_count(usage.prompt_tokens or usage.input_tokens),
        cached_tokens=_count(read.cached_tokens) if read else 0,
        output_tokens=_count(usage.completion_tokens or usage.output_tokens),
        reasoning_tokens=_count(wrote.reasoning_tokens) if wrote else 0,
    )


_TOKENS_MAX = 2**40  # A larger count is a mistake of the server, and would overflow the sums.


def _count(tokens: int | None) -> int:
    return tokens if tokens is not None and 0 <= tokens <= _TOKENS_MAX else 0


def _is_json(raw: bytes) -> bool:
    try:
        _decode_raw(raw)
    except (msgspec.DecodeError, RecursionError):
        return _is_json_at_length(raw)
    return True


def _is_json_at_length(raw: bytes) -> bool:
    # Some servers write escapes of lone surrogates, which the grammar of JSON permits. msgspec
    # rejects them; the standard library does not.
    if b"\\u" not in raw:
        return False
    try:
        # Decode first: given bytes, `loads` also accepts UTF-16 and a byte order mark.
        # Keep numbers as text: Python refuses to convert thousands of digits.
        json.loads(raw.decode(), parse_constant=_refuse, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
