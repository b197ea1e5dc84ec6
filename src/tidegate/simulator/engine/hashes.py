"""By what a full block is known: a hash over its tokens and all before them."""

from functools import lru_cache
from hashlib import blake2b

ROOT = 0
KEYS_KEPT_MAX = 8_192


def block_key(parent: int, tokens: bytes, extra: int = 0) -> bytes:
    """Return what is hashed of a block after `parent`; `extra` keeps adapters apart."""
    return (parent ^ extra).to_bytes(8, "little") + tokens


def hash_of(key: bytes) -> int:
    """Return the 64-bit hash of a block."""
    # Sums of shifted tokens, such as Python's hash of a long number, meet for everyday prompts.
    return int.from_bytes(blake2b(key, digest_size=8).digest(), "little")


# For blocks that are looked up: the prompts of an hour begin alike.
known_hash_of = lru_cache(maxsize=KEYS_KEPT_MAX)(hash_of)
