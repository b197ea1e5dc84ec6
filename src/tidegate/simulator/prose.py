"""Words that stand in for what a model would say."""

from hashlib import blake2b, shake_256

from tidegate.simulator.settings import TOKENS_MAX

_TEXT = (
    "the tide comes in and goes out while small boats wait beside an old stone harbour where "
    "gulls call over quiet water and every evening someone lights a lamp above the long pier so "
    "that late sailors find their way home through rain fog or wind until morning brings warm "
    "light again with nets full of silver fish"
)
_WORDS = _TEXT.split()


class Prose:
    """One long text made from a seed, of which every answer is a piece. A word is one token."""

    def __init__(self, seed: int) -> None:
        self._key = seed.to_bytes(16, "big", signed=True)
        choices = shake_256(self._key).digest(2 * TOKENS_MAX)
        words = [_WORDS[choice % len(_WORDS)] for choice in choices]
        self._text = " ".join(words)
        self._starts = [0]
        for word in words:
            self._starts.append(self._starts[-1] + len(word) + 1)

    def digest(self, body: bytes) -> int:
        """Return the 64-bit number that decides everything about the answer to this body."""
        return int.from_bytes(blake2b(body, digest_size=8, key=self._key).digest(), "big")

    def piece(self, number: int, tokens: int) -> str:
        """Return so many words, chosen by a number. They need no escape in JSON."""
        start = number % TOKENS_MAX
        return self._text[self._starts[start] : self._starts[start + tokens] - 1]
