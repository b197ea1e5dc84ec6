"""What a request asks, in one canonical spelling: it orders the lines of a plan.

What an engine renders first comes first, so that requests which share the beginning of their
prompt are neighbours. Spelling only decides the order, so what can't be read stays as it is.

Sorting long prompts whole would cost more than all the rest of planning. A key holds the first
`PLAIN_BYTES` of one as they are, and of what follows a digest for each `BLOCK_BYTES`: prompts with
equal keys so far share as much, and are neighbours still.
"""

import functools
from collections.abc import Sequence
from zlib import crc32

import msgspec

from tidegate.wire.lines import Message, Said, decode_messages

PLAIN_BYTES = 2_048
BLOCK_BYTES = 2_048
# What lies behind does not order.
PROMPT_BYTES_MAX = 65_536
_DIGEST_BYTES = 8
_USUAL = frozenset({"role", "content"})
# Tools are the same in most lines of a file: so many spellings are remembered.
_SPELLINGS_MAX = 16

_decode_any = msgspec.json.Decoder().decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
# Beside what a decoder raises: an integer that JSON can hold and the encoder can't.
UNSPELLABLE = (msgspec.MsgspecError, RecursionError, ValueError, OverflowError)


def sort_key(*parts: bytes) -> bytes:
    """Return what orders a prompt with these spelled parts; there is no NUL in it."""
    return _key_of(b"\x1f".join(parts))


def chat_key(tools: bytes, messages: Sequence[Said]) -> bytes:
    """Return the `sort_key` of a chat with these messages, and these tools as they are written.

    All of them together have at most `PROMPT_BYTES_MAX` bytes as they were written.

    Raises:
        one of `UNSPELLABLE`: a text can't be encoded.
    """
    text = "\x1e".join([f"{said.role}\x1f{said.content}" for said in messages])
    if tools:
        return _key_of(b"%b\x1f\x1f%b\x1f\x1f" % (spelled_raw(tools), text.encode()))
    return _key_of(f"\x1f\x1f{text}\x1f\x1f".encode())


def _key_of(text: bytes) -> bytes:
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


def covered(key_bytes: int) -> int:
    """Return how many bytes of a prompt the first so many bytes of its key stand for, at most."""
    plain = min(key_bytes, PLAIN_BYTES)
    return plain + (key_bytes - plain) // _DIGEST_BYTES * BLOCK_BYTES


def spelled(value: object) -> bytes:
    """Spell any value: a text as it reads, nothing as nothing, all else as compact JSON.

    Raises:
        one of `UNSPELLABLE`: it can't be written again.
    """
    if isinstance(value, str):
        return (value if len(value) <= PROMPT_BYTES_MAX else value[:PROMPT_BYTES_MAX]).encode()
    return b"" if value is None else _encode_sorted(value)


def spelled_messages(messages: list[Message]) -> bytes:
    """Spell messages in their order, each by its role, its content, and whatever else it holds.

    Raises:
        one of `UNSPELLABLE`: one can't be written again.
    """
    if len(messages) == 1:
        return _spelled_message(messages[0])
    found: list[bytes] = []
    length = 0
    for message in messages:
        text = _spelled_message(message)
        found.append(text)
        length += len(text)
        if length >= PROMPT_BYTES_MAX:
            break
    return b"\x1e".join(found)


def _spelled_message(message: Message) -> bytes:
    role, content = message.get("role"), message.get("content")
    if type(role) is str and type(content) is str and len(message) == len(_USUAL):
        return f"{role}\x1f{content[:PROMPT_BYTES_MAX]}".encode()
    text = b"%b\x1f%b" % (spelled(role), spelled(content))
    others = {name: message[name] for name in message.keys() - _USUAL}
    return b"%b\x1f%b" % (text, _encode_sorted(others))


def spelled_raw(raw: bytes) -> bytes:
    """Spell JSON as written; what is too long, or can't be read, stays as it is."""
    if len(raw) > PROMPT_BYTES_MAX:
        return raw[:PROMPT_BYTES_MAX]
    return _remembered(raw) if raw else b""


def spelled_raw_messages(raw: bytes) -> bytes:
    """Spell messages as written, whatever they are."""
    try:
        return spelled_messages(decode_messages(raw))
    except UNSPELLABLE:
        return spelled_raw(raw)


@functools.lru_cache(_SPELLINGS_MAX)
def _remembered(raw: bytes) -> bytes:
    try:
        return spelled(_decode_any(raw))
    except UNSPELLABLE:
        return raw
