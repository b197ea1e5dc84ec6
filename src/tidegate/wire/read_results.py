"""Decode result lines: which request each one answers, and what it added to the counts."""

import re

import msgspec

from tidegate.domain.shard import Tally
from tidegate.domain.usage import Usage
from tidegate.wire.results import read_reply_body

EXPIRED_CODE = "batch_expired"
_ID = re.compile(rb'\{"id":"[^"\\]{1,200}_(\d{1,10})","custom_id":')


class _Response(msgspec.Struct):
    body: msgspec.Raw


class _Error(msgspec.Struct):
    code: str


class _Rest(msgspec.Struct):
    response: _Response | None = None
    error: _Error | None = None


_decode = msgspec.json.Decoder(_Rest).decode


def number_of(line: bytes) -> int | None:
    """Return the number of the request that a result line answers; None if we did not write it."""
    found = _ID.match(line)
    return None if found is None else int(found[1])


def tally_of(line: bytes, custom_id: bytes, *, is_error: bool) -> Tally | None:
    """Return what a result line added to the counts; None if it answers another request.

    `custom_id` is the JSON string of the request as written; `is_error` is True for a line of the
    error file.
    """
    found = _ID.match(line)
    if found is None or not line.startswith(custom_id, found.end()):
        return None
    rest = _read(line[found.end() + len(custom_id) :])
    if is_error:
        expired = rest.error is not None and rest.error.code == EXPIRED_CODE
        return Tally(failed=1, expired=int(expired))
    body = None if rest.response is None else read_reply_body(bytes(rest.response.body))
    return Tally(completed=1, usage=Usage() if body is None else body.usage)


def _read(rest: bytes) -> _Rest:
    # A line that msgspec rejects (escapes of lone surrogates) was counted without tokens.
    try:
        return _decode(b"{" + rest.removeprefix(b","))
    except msgspec.DecodeError:
        return _Rest()
