"""Log probabilities that nobody computed: the chosen token first, then others less likely."""

import json
import math

from tidegate.simulator.answers.generation import Choice
from tidegate.simulator.answers.seeded import digest
from tidegate.simulator.engine.tokens import WORDS, word
from tidegate.simulator.formats.prompted import Prompted
from tidegate.simulator.formats.texts import ids, piece

_CHOSEN_SHARE_MIN = 0.5


def _ranked(choice: Choice, place: int, count: int) -> list[tuple[str, float]]:
    """Return the chosen token and `count` - 1 others with their log probabilities, best first."""
    number = digest(choice.request.key, place)
    share = _CHOSEN_SHARE_MIN + (1 - _CHOSEN_SHARE_MIN) * (number % 997) / 1_000
    found = [(piece(choice, place), math.log(share))]
    token, left = ids(choice, place, place + 1)[0], 1.0 - share
    for rank in range(1, count):
        left *= 0.5
        found.append((word((token + rank) % WORDS), math.log(left)))
    return found


def chat_json(choice: Choice, start: int, stop: int, top: int) -> str:
    """Return the log probabilities of some tokens as a chat has them."""
    entries = []
    for place in range(start, stop):
        ranked = _ranked(choice, place, max(top, 1))
        entry = _entry(*ranked[0])
        entry["top_logprobs"] = [_entry(*each) for each in ranked[:top]]
        entries.append(entry)
    return json.dumps({"content": entries}, separators=(",", ":"))


def _entry(text: str, logprob: float) -> dict[str, object]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode())}


class Rows:
    """Log probabilities as a completion has them: of a prompt that is echoed, then of the answer.

    `offset` is how many characters stand before the first of them.
    """

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self._texts: list[str] = []
        self._values: list[float | None] = []
        self._tops: list[dict[str, float] | None] = []
        self._offsets: list[int] = []

    def add_prompt(self, prompt: Prompted, top: int) -> None:
        """Add the tokens of a prompt; nothing is known of the first."""
        for text, place in zip(prompt.pieces, prompt.places(top), strict=True):
            if place is None:
                self._add(text, None, None)
            else:
                likely = {each.text: each.logprob for each in place}
                self._add(text, place[0].logprob, likely)

    def add_answer(self, choice: Choice, start: int, stop: int, top: int) -> None:
        """Add some tokens of an answer."""
        for place in range(start, stop):
            ranked = _ranked(choice, place, max(top, 1))
            self._add(*ranked[0], dict(ranked))

    def _add(self, text: str, value: float | None, likely: dict[str, float] | None) -> None:
        self._texts.append(text)
        self._values.append(value)
        self._tops.append(likely)
        self._offsets.append(self._offset)
        self._offset += len(text)

    def shown(self) -> str:
        """Return them as JSON."""
        return json.dumps(
            {
                "text_offset": self._offsets,
                "token_logprobs": self._values,
                "tokens": self._texts,
                "top_logprobs": self._tops,
            },
            separators=(",", ":"),
        )
