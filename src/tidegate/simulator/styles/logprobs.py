"""Log probabilities that nobody computed: the chosen token first, then others less likely."""

import json
import math

from tidegate.simulator.dice import digest
from tidegate.simulator.engine.tokens import WORDS, word
from tidegate.simulator.generation import Choice
from tidegate.simulator.styles.texts import ids, piece

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


def completion_json(choice: Choice, start: int, stop: int, *, top: int, offset: int) -> str:
    """Return the log probabilities of some tokens as a completion has them.

    `offset` is how many characters stand before the first of them.
    """
    texts, values, tops, offsets = [], [], [], []
    for place in range(start, stop):
        ranked = _ranked(choice, place, max(top, 1))
        texts.append(ranked[0][0])
        values.append(ranked[0][1])
        tops.append(dict(ranked[:top]) if top else None)
        offsets.append(offset)
        offset += len(ranked[0][0])
    return json.dumps(
        {
            "text_offset": offsets,
            "token_logprobs": values,
            "tokens": texts,
            "top_logprobs": tops,
        },
        separators=(",", ":"),
    )
