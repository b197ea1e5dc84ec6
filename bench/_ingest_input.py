"""Files of lines as scripts write them: prose with line ends, in no order, by `json.dumps`."""

import json
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

_TEXT = """the quick tide lifts every boat that waits in the harbour while a model reads what it
was asked and answers in its own time because nobody is in a hurry at night"""
_WORDS = _TEXT.split()
_PARAGRAPHS = 997
_PARAGRAPH_BYTES = 400
# Every line begins with it, as the lines of one job do.
_SYSTEM = "You sort letters from customers. Answer with one word: praise, complaint or question."


@dataclass(frozen=True)
class Input:
    """Lines of one size, in a file."""

    folder: Path
    lines: int
    line_bytes: int

    @property
    def name(self) -> str:
        return f"{self.lines} lines of {self.line_bytes / 1000:g} KB"

    @property
    def megabytes(self) -> float:
        return self.lines * self.line_bytes / 1e6

    @cached_property
    def path(self) -> Path:
        """The file, written when first asked for; each prompt is one of a kind."""
        path = self.folder / f"input-{self.lines}-{self.line_bytes}.jsonl"
        if not path.exists():
            paragraphs = _paragraphs()
            with path.open("wb") as out:
                for number in range(self.lines):
                    out.write(_line(number, self.line_bytes, paragraphs))
        return path


def _paragraphs() -> list[str]:
    """Return paragraphs of about the same length, each with line ends in it."""
    chance = random.Random(1)
    found = []
    for _ in range(_PARAGRAPHS):
        words: list[str] = []
        while sum(map(len, words)) + len(words) < _PARAGRAPH_BYTES:
            words.append(chance.choice(_WORDS) + ("" if chance.random() > 0.06 else ".\n"))
        found.append(" ".join(words))
    return found


def _line(number: int, line_bytes: int, paragraphs: list[str]) -> bytes:
    """Return a line of this many bytes, with its newline."""
    chance = random.Random(number)
    text = f"Letter {chance.randrange(10**9)}-{number}:\n"
    while len(text) < line_bytes:
        text += chance.choice(paragraphs) + "\n"
    spare = len(_spelled(number, text)) - line_bytes
    # An escaped line end is two bytes, so what was cut away may have been too much.
    text = text[: max(len(text) - spare, 0)]
    return _spelled(number, text + "x" * (line_bytes - len(_spelled(number, text))))


def _spelled(number: int, text: str) -> bytes:
    messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": text}]
    body = {"model": "m", "max_tokens": 5, "messages": messages}
    request = {"method": "POST", "url": "/v1/chat/completions", "body": body}
    return json.dumps({"custom_id": f"letter-{number}", **request}).encode() + b"\n"
