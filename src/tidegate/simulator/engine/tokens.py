"""Token ids: of the text that comes in, and of the text that goes out.

There is no vocabulary of a model. Every generated token is a word of three syllables that its id
spells, so that the same words, sent back as part of a longer prompt, are the same tokens again and
find their blocks in the prefix cache.
"""

import re
import zlib
from array import array
from hashlib import blake2b
from itertools import product

VOCABULARY = 65_536
WORDS = 32_768
CHUNK_TOKENS = 16
_CHUNKS_KEPT = 4
_WORD_MASK = int.from_bytes(array("I", [WORDS - 1] * CHUNK_TOKENS).tobytes(), "little")
_ALL_BITS = (1 << 8 * 4 * CHUNK_TOKENS) - 1
# Two odd numbers without a pattern: the digests of their names.
_STRIDE = int.from_bytes(blake2b(b"stride", digest_size=64).digest(), "little") | 1
_FACTOR = int.from_bytes(blake2b(b"factor", digest_size=64).digest(), "little") | 1
_PIECE = re.compile(r"\s?[^\W_]{1,24}|\s?[^\w\s]{1,4}|\s+|_+")
_SYLLABLES = [first + second for first, second in product("bdfklmnprstvgzjh", "ai")]
_SYLLABLES[16:] = [first + second for first, second in product("bdfklmnprstvgzjh", "o")]
assert len(set(_SYLLABLES)) == 32  # noqa: PLR2004 - five bits each
_NUMBER = {syllable: number for number, syllable in enumerate(_SYLLABLES)}


def word(token: int) -> str:
    """Return the text of a generated token, with the blank before it."""
    assert 0 <= token < WORDS, token
    return " " + _SYLLABLES[token >> 10] + _SYLLABLES[(token >> 5) & 31] + _SYLLABLES[token & 31]


def text(tokens: "array[int]") -> str:
    """Return the text of generated tokens."""
    return "".join([_WORDS[token] for token in tokens])


_WORDS = [word(token) for token in range(WORDS)]
_TOKEN = {piece: token for token, piece in enumerate(_WORDS)}


def tokenize(content: str) -> "array[int]":
    """Return the tokens of any text: those that we generated as they were, others by their hash."""
    found = array("I")
    for piece in _PIECE.findall(content):
        token = _TOKEN.get(piece)
        if token is None:
            token = WORDS + zlib.crc32(piece.encode("utf-8", "surrogatepass")) % WORDS
        found.append(token)
    return found


class Outputs:
    """The tokens that one request generates, whenever they are asked for.

    Token i depends on the seed, the request's key and i alone: chunk n of sixteen tokens is cut
    out of the middle of the product of two long numbers, one of which steps with n. That is no
    cryptography, and many times as fast.
    """

    __slots__ = ("_chunks", "_key")

    def __init__(self, seed: int, request_key: str) -> None:
        digest = blake2b(f"{seed}\x00{request_key}".encode(), digest_size=64).digest()
        self._key = int.from_bytes(digest, "little")
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
            product = ((self._key + number * _STRIDE) & _ALL_BITS) * _FACTOR
            data = ((product >> 256) & _WORD_MASK).to_bytes(4 * CHUNK_TOKENS, "little")
            if len(self._chunks) >= _CHUNKS_KEPT:
                self._chunks.clear()
            self._chunks[number] = data
        return data
