"""Log probabilities of the tokens of a prompt, which nobody computed.

That of a token follows from it and all before it: the same beginnings have the same.
"""

import json
import math
from array import array
from collections.abc import Iterator

import msgspec

from tidegate.simulator.answers.seeded import digest
from tidegate.simulator.engine.tokens import WORDS, detokenize, prompt_pieces, word

_RARE = 29


class Rank(msgspec.Struct, frozen=True):
    """A token at a place, how likely it is, and how many are at least as likely."""

    token: int
    text: str
    rank: int

    @property
    def logprob(self) -> float:
        """Return the log probability: each rank is half as likely as the one before."""
        return -math.log(2) * self.rank


class Prompted(msgspec.Struct, frozen=True):
    """A prompt whose log probabilities are shown, in tokens and in pieces of text."""

    ids: "array[int]"
    pieces: list[str]

    def places(self, top: int) -> Iterator[list[Rank] | None]:
        """Yield, for each token, its own rank and then the `top` first ones; None for the first."""
        number = 0
        for place, (token, piece) in enumerate(zip(self.ids, self.pieces, strict=True)):
            number = digest(number, token)
            if not place:
                yield None
                continue
            # Three of four tokens are what one would have guessed.
            own = Rank(token, piece, 1 if number % 4 else 2 + number % _RARE)
            found = [own]
            for rank in range(1, top + 1):
                other = (number + rank) % WORDS
                if rank != own.rank and other != token:
                    found.append(Rank(other, word(other), rank))
            yield found


def prompted(ids: "array[int]", text: str | None) -> Prompted:
    """Return a prompt in pieces: those of its text, where it has one."""
    pieces = [] if text is None else prompt_pieces(text)
    if len(pieces) != len(ids):
        pieces = [detokenize([token]) for token in ids]
    return Prompted(ids, pieces)


def prompt_json(prompt: Prompted, top: int) -> str:
    """Return the log probabilities of a prompt as vLLM's own member has them."""
    shown = [
        None
        if place is None
        else {
            str(each.token): {
                "logprob": each.logprob,
                "rank": each.rank,
                "decoded_token": each.text,
            }
            for each in place
        }
        for place in prompt.places(top)
    ]
    return json.dumps(shown, separators=(",", ":"))
