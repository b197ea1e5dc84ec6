"""Token ids: of the text that comes in, and of the text that goes out.

There is no vocabulary of a model. Every generated token is a word of three syllables that its id
spells, so that the same words, sent back as part of a longer prompt, are the same tokens again and
find their blocks in the prefix cache.
"""

import re
import zlib
from array import array
from collections.abc import Iterable
from hashlib import blake2b
from itertools import product

VOCABULARY = 65_536
PIECES_KEPT_MAX = 131_072
PIECE_CHARACTERS_MAX = 24
WORDS = 32_768
CHUNK_TOKENS = 16
TOKEN_BYTES = 4
_CHUNKS_KEPT = 4
_WORD_MASK = int.from_bytes(array("I", [WORDS - 1] * CHUNK_TOKENS).tobytes(), "little")
_ALL_BITS = (1 << 8 * 4 * CHUNK_TOKENS) - 1
# Two odd numbers without a pattern: the digests of their names.
_STRIDE = int.from_bytes(blake2b(b"stride", digest_size=64).digest(), "little") | 1
_FACTOR = int.from_bytes(blake2b(b"factor", digest_size=64).digest(), "little") | 1
_PIECE = re.compile(r"\s?[^\W_]{1,24}|\s?[^\w\s]{1,4}|\s{1,24}|_{1,24}")
_SYLLABLES = [first + second for first, second in product("bdfklmnprstvgzjh", "ai")]
_SYLLABLES[16:] = [first + second for first, second in product("bdfklmnprstvgzjh", "o")]
assert len(set(_SYLLABLES)) == 32  # noqa: PLR2004 - five bits each


def word(token: int) -> str:
    """Return the text of a generated token, with the blank before it."""
    assert 0 <= token < WORDS, token
    return " " + _SYLLABLES[token >> 10] + _SYLLABLES[(token >> 5) & 31] + _SYLLABLES[token & 31]


def text(tokens: "array[int]") -> str:
    """Return the text of generated tokens."""
    return "".join([_WORDS[token] for token in tokens])


_WORDS = [word(token) for token in range(WORDS)]
WORD_BYTES = [piece.encode("ascii") for piece in _WORDS]
WORD_CHARACTERS = len(WORD_BYTES[0])
assert {len(piece) for piece in WORD_BYTES} == {WORD_CHARACTERS}


class _TooLong(Exception):
    """A word is more than one token."""


class _Numbers(dict[str, int]):
    """The token of each piece of text; those that are not ours are worked out once."""

    def __missing__(self, piece: str) -> int:
        if len(piece) > PIECE_CHARACTERS_MAX:
            raise _TooLong
        token = WORDS + zlib.crc32(piece.encode("utf-8", "surrogatepass")) % WORDS
        if len(self) < PIECES_KEPT_MAX:
            self[piece] = token
        return token


# Under their names without the blank: what stands before a word does not change its token.
_TOKEN = _Numbers({piece[1:]: token for token, piece in enumerate(_WORDS)})
_number_of = _TOKEN.__getitem__


def pieces(content: str) -> list[str]:
    """Cut a text that is given out into the pieces that are a token each."""
    found: list[str] = _PIECE.findall(content)
    return found


def prompt_pieces(content: str) -> list[str]:
    """Cut a text that comes in: words with the blank before them, long ones into equal parts.

    That is many times as fast as any rule with a regular expression, and prompts are long.
    """
    first, *rest = content.split(" ")
    found = _parts(first) if first else []
    for word_after_blank in rest:
        head, *parts = _parts(word_after_blank) or [""]
        found += (" " + head, *parts)
    return found


def tokenize(content: str) -> "array[int]":
    """Return the tokens of any text: those that we generated as they were, others by their hash."""
    words = content.split(" ")
    if not words[0]:
        del words[0]  # The blank belongs to the word after it.
    try:
        return array("I", list(map(_number_of, words)))
    except _TooLong:
        return array("I", list(map(_number_of, _shortened(words))))


def _shortened(words: list[str]) -> list[str]:
    found: list[str] = []
    for each in words:
        if len(each) <= PIECE_CHARACTERS_MAX:
            found.append(each)
        else:
            found += _parts(each)
    return found


def token_of(piece: str) -> int:
    """Return the token of one piece of a text that is given out."""
    return _number_of(piece.removeprefix(" ")[:PIECE_CHARACTERS_MAX])


def _parts(text: str) -> list[str]:
    size = PIECE_CHARACTERS_MAX
    return [text[start : start + size] for start in range(0, len(text), size)]


def detokenize(tokens: Iterable[int]) -> str:
    """Return a text for any tokens; of those that no text of ours has, only the number is left."""
    return "".join([_WORDS[token] if token < WORDS else f" <{token}>" for token in tokens])


class Script:
    """Tokens that were decided beforehand, in place of drawn ones."""

    __slots__ = ("_data",)

    def __init__(self, tokens: "array[int]") -> None:
        self._data = tokens.tobytes()

    def ids(self, start: int, stop: int) -> bytes:
        """Return the tokens from `start` to `stop`, four bytes each, little-endian."""
        return self._data[4 * start : 4 * stop]


class Outputs:
    """The tokens that one request generates, whenever they are asked for.

    Token i depends on the seed, the request's key and i alone: chunk n of sixteen tokens is cut
    out of the middle of the product of two long numbers, one of which steps with n. That is no
    cryptography, and many times as fast.
    """

    __slots__ = ("_chunks", "_key", "_name")

    def __init__(self, seed: int, request_key: str) -> None:
        self._name = f"{seed}\x00{request_key}"
        self._key: int | None = None
        self._chunks: dict[int, bytes] = {}

    def ids(self, start: int, stop: int) -> bytes:
        """Return the tokens from `start` to `stop`, four bytes each, little-endian."""
        number = start // CHUNK_TOKENS
        data = self._chunk(number)
        end = (number + 1) * CHUNK_TOKENS
        while end < stop:
            number += 1
            data += self._chunk(number)
            end += CHUNK_TOKENS
        low = 4 * (start % CHUNK_TOKENS)
        return data[low : low + 4 * (stop - start)]

    def _chunk(self, number: int) -> bytes:
        data = self._chunks.get(number)
        if data is None:
            key = self._key
            if key is None:
                digest = blake2b(self._name.encode(), digest_size=64).digest()
                key = self._key = int.from_bytes(digest, "little")
            product = ((key + number * _STRIDE) & _ALL_BITS) * _FACTOR
            data = ((product >> 256) & _WORD_MASK).to_bytes(4 * CHUNK_TOKENS, "little")
            if len(self._chunks) >= _CHUNKS_KEPT:
                self._chunks.clear()
            self._chunks[number] = data
        return data


class Content:
    """The tokens of a sequence by place, or of what remains of one.

    Args:
        prompt: tokens, four bytes each, little-endian.
        outputs: those that follow, from the one with the number `skipped` on.
        skipped: nothing unless the prompt is empty.
    """

    __slots__ = ("_outputs", "_prompt", "_prompt_tokens", "_skipped")

    def __init__(self, prompt: bytes, outputs: Outputs | Script, skipped: int = 0) -> None:
        self._prompt = prompt
        self._prompt_tokens = len(prompt) // 4
        self._outputs = outputs
        self._skipped = skipped

    def ids(self, start: int, stop: int) -> bytes:
        """Return the tokens from `start` to `stop`, four bytes each."""
        if stop <= self._prompt_tokens:
            return self._prompt[4 * start : 4 * stop]
        first = self._skipped - self._prompt_tokens
        if start >= self._prompt_tokens:
            return self._outputs.ids(first + start, first + stop)
        return self._prompt[4 * start :] + self._outputs.ids(0, first + stop)

    def after(self, start: int) -> "Content":
        """Return the tokens from `start` on, without those before."""
        beyond = max(0, start - self._prompt_tokens)
        return Content(self._prompt[4 * start :], self._outputs, self._skipped + beyond)
