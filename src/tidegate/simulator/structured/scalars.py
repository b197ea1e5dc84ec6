"""Numbers and texts that a JSON schema accepts: values that have no others inside."""

import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from fractions import Fraction

import msgspec

from tidegate.simulator.answers.seeded import SeededChoices
from tidegate.simulator.engine import tokens
from tidegate.simulator.structured.regex.expressions import Unreadable
from tidegate.simulator.structured.regex.formats import FORMATS
from tidegate.simulator.structured.regex.regexes import read_regex
from tidegate.simulator.structured.regex.writing import Writer

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Schema = Mapping[str, Json]

TEXT_CHARACTERS_MAX = 4_096
TRIES_MAX = 64
WORK_MAX = 65_536
_NUMBERS_MAX = 100


class ScalarWriter:
    """Makes numbers and texts up; `work` counts what the texts of patterns took so far."""

    def __init__(self, dice: SeededChoices) -> None:
        self.work = 0
        self._dice = dice
        self._writers: dict[str, Writer] = {}

    def size(self, schema: Schema, name: str, otherwise: int) -> int:
        """Return a number of things that a schema names, or another where it does not.

        Raises:
            Unreadable: it is no number, as in all methods here.
        """
        value = bound(schema, name)
        return otherwise if value is None else max(0, int(value))

    # Numbers

    def number(self, schema: Schema, *, is_whole: bool) -> int | float:
        """Return a number that a schema accepts."""
        step = _step(schema, is_whole=is_whole)
        low, low_open = _limit(schema, "minimum", "exclusiveMinimum", is_low=True)
        high, high_open = _limit(schema, "maximum", "exclusiveMaximum", is_low=False)
        reach = _NUMBERS_MAX * float(step or 1)
        if low is None and high is None:
            low, high = 0, reach
        elif low is None:
            assert high is not None, schema
            low = high - reach
        elif high is None:
            high = low + reach
        assert high is not None, schema
        if step is None:
            return self._fraction(low, high, is_open=low_open or high_open)
        first_, last_ = Fraction(low) / step, Fraction(high) / step
        first = math.floor(first_) + 1 if low_open else math.ceil(first_)
        last = math.ceil(last_) - 1 if high_open else math.floor(last_)
        if first > last:
            raise Unreadable("no number lies within its bounds")
        result = self._dice.between(first, last) * step
        return int(result) if is_whole else float(result)

    def _fraction(self, low: float, high: float, *, is_open: bool) -> float:
        if low > high or (is_open and low == high):
            raise Unreadable("no number lies within its bounds")
        if low == high:
            return low
        return low + (high - low) * self._dice.between(1, 99) / 100

    # Texts

    def text(self, schema: Schema) -> str:
        """Return a text that a schema accepts."""
        low = self.size(schema, "minLength", 0)
        high = self.size(schema, "maxLength", TEXT_CHARACTERS_MAX)
        if low > high or low > TEXT_CHARACTERS_MAX:
            raise Unreadable("no text has a length within its bounds")
        pattern = _pattern(schema)
        if pattern is not None:
            return self._fitting(pattern, low, high)
        words = [tokens.word(self._dice.roll(tokens.WORDS)) for _ in range(1 + self._dice.roll(3))]
        text = "".join(words).strip()[:high]
        return text + "a" * (low - len(text))

    def _fitting(self, pattern: str, low: int, high: int) -> str:
        """Return a text of this length that fits a pattern, if one is found soon."""
        writer = self._writers.get(pattern)
        if writer is None:
            self.work += len(pattern)
            writer = self._writers[pattern] = Writer(read_regex(pattern))
        for _ in range(TRIES_MAX):
            self.work += writer.work_max
            if self.work > WORK_MAX:
                raise Unreadable("its patterns are too large together")
            text = writer.write(self._dice)
            if low <= len(text) <= high:
                return text
        raise Unreadable("no text was found that fits the pattern and its length")


def same(first: Json, second: Json) -> bool:
    """Return whether two values are the same in JSON, in which false is no 0."""
    return first == second and msgspec.json.encode(first) == msgspec.json.encode(second)


def is_among(value: Json, others: Sequence[Json]) -> bool:
    """Return whether a value is one of several."""
    return any(same(value, each) for each in others)


def _pattern(schema: Schema) -> str | None:
    pattern, shape = schema.get("pattern"), schema.get("format")
    known = FORMATS.get(shape) if isinstance(shape, str) else None
    if pattern is None:
        return known
    if known is not None:
        raise Unreadable("'pattern' and 'format' are not supported together")
    if not isinstance(pattern, str):
        raise Unreadable("'pattern' is a text")
    return pattern


def _step(schema: Schema, *, is_whole: bool) -> Fraction | None:
    asked = bound(schema, "multipleOf")
    if asked is None:
        return Fraction(1) if is_whole else None
    # As it is written in decimal: 0.1 is a tenth.
    step = Fraction(Decimal(repr(asked)))
    if step <= 0:
        raise Unreadable("'multipleOf' must be above 0")
    return Fraction(step.numerator) if is_whole else step


def _limit(schema: Schema, name: str, open_name: str, *, is_low: bool) -> tuple[float | None, bool]:
    closed, opened = bound(schema, name), bound(schema, open_name)
    if closed is None or opened is None:
        return (opened, True) if closed is None else (closed, False)
    opened_wins = opened >= closed if is_low else opened <= closed
    return (opened, True) if opened_wins else (closed, False)


def bound(schema: Schema, name: str) -> float | None:
    """Return a number that a schema names, if it does.

    Raises:
        Unreadable: it is none, or too large.
    """
    value = schema.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unreadable(f"'{name}' is a number")
    if not math.isfinite(value) or abs(value) > 1e15:  # noqa: PLR2004 - still exact as a float
        raise Unreadable(f"'{name}' is too large")
    return value
