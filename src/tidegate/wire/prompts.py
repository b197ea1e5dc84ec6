"""Sort keys of prompts: they order the lines of a plan.

A key begins with what an engine renders first, in a canonical form, so that requests whose prompts
begin alike are neighbours. The form only decides the order, so JSON that cannot be decoded is used
as it is.

Sorting whole long prompts would cost more than the rest of planning. So a key holds the first
`PLAIN_BYTES` of a prompt as they are, and then a digest of each `BLOCK_BYTES`: prompts whose keys
share a prefix still share the text that it stands for.
"""

import functools
from collections.abc import Sequence
from zlib import crc32

import msgspec

from tidegate.wire.lines import Message, PlainMessage, decode_messages

PLAIN_BYTES = 2_048
BLOCK_BYTES = 2_048
# Text after this does not influence the order.
PROMPT_BYTES_MAX = 65_536
_DIGEST_BYTES = 8
_USUAL = frozenset({"role", "content"})
# Most lines of a file have the same tools, so a few canonical forms are cached.
_CACHED_MAX = 16

_decode_any = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
# The errors of a decoder, and of the encoder for integers that only JSON can represent.
CANONICAL_ERRORS = (msgspec.MsgspecError, RecursionError, ValueError, OverflowError)


def sort_key(*parts: bytes) -> bytes:
    """Return the sort key of a prompt with these canonical parts. It contains no NUL."""
    return _shortened_key(b"\x1f".join(parts))


def chat_sort_key(tools: bytes, messages: Sequence[PlainMessage]) -> bytes:
    """Return the `sort_key` of a chat with these messages, and these tools as written.

    Together they must have at most `PROMPT_BYTES_MAX` bytes as written.

    Raises:
        one of `CANONICAL_ERRORS`: a text can't be encoded.
    """
    text = "\x1e".join([f"{message.role}\x1f{message.content}" for message in messages])
    if tools:
        return _shortened_key(b"%b\x1f\x1f%b\x1f\x1f" % (canonical_raw(tools), text.encode()))
    return _shortened_key(f"\x1f\x1f{text}\x1f\x1f".encode())


def _shortened_key(text: bytes) -> bytes:
    plain = text[:PLAIN_BYTES]
    if b"\0" in plain:
        plain = plain.replace(b"\0", b" ")
    length = len(text)
    if length <= PLAIN_BYTES:
        return plain
    if length <= PLAIN_BYTES + BLOCK_BYTES:
        return b"%b%08x" % (plain, crc32(text[PLAIN_BYTES:]))
    blocks = range(PLAIN_BYTES, min(length, PROMPT_BYTES_MAX), BLOCK_BYTES)
    digests = [b"%08x" % crc32(text[start : start + BLOCK_BYTES]) for start in blocks]
    return plain + b"".join(digests)


def prompt_bytes_covered(key_bytes: int) -> int:
    """Return how many bytes of a prompt the first `key_bytes` of its key represent, at most."""
    plain = min(key_bytes, PLAIN_BYTES)
    return plain + (key_bytes - plain) // _DIGEST_BYTES * BLOCK_BYTES


def canonical(value: object) -> bytes:
    """Return the canonical form of a value: text as it is, null as nothing, else compact JSON.

    Raises:
        one of `CANONICAL_ERRORS`: it can't be encoded.
    """
    if isinstance(value, str):
        return (value if len(value) <= PROMPT_BYTES_MAX else value[:PROMPT_BYTES_MAX]).encode()
    return b"" if value is None else _encode_sorted(value)


def canonical_messages(messages: list[Message]) -> bytes:
    """Return the canonical form of messages: of each the role, the content and other members.

    Raises:
        one of `CANONICAL_ERRORS`: one can't be encoded.
    """
    if len(messages) == 1:
        return _canonical_message(messages[0])
    found: list[bytes] = []
    length = 0
    for message in messages:
        text = _canonical_message(message)
        found.append(text)
        length += len(text)
        if length >= PROMPT_BYTES_MAX:
            break
    return b"\x1e".join(found)


def _canonical_message(message: Message) -> bytes:
    role, content = message.get("role"), message.get("content")
    if type(role) is str and type(content) is str and len(message) == len(_USUAL):
        return f"{role}\x1f{content[:PROMPT_BYTES_MAX]}".encode()
    text = b"%b\x1f%b" % (canonical(role), canonical(content))
    others = {name: message[name] for name in message.keys() - _USUAL}
    return b"%b\x1f%b" % (text, _encode_sorted(others))


def canonical_raw(raw: bytes) -> bytes:
    """Return the canonical form of encoded JSON; cut it if too long, keep it if invalid."""
    if len(raw) > PROMPT_BYTES_MAX:
        return raw[:PROMPT_BYTES_MAX]
    return _canonical_cached(raw) if raw else b""


def canonical_raw_messages(raw: bytes) -> bytes:
    """Return the canonical form of encoded messages, of any type."""
    try:
        return canonical_messages(decode_messages(raw))
    except CANONICAL_ERRORS:
        return canonical_raw(raw)


@functools.lru_cache(_CACHED_MAX)
def _canonical_cached(raw: bytes) -> bytes:
    try:
        return canonical(_decode_any(raw))
    except CANONICAL_ERRORS:
        return raw
