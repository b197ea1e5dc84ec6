"""Reads the text of an expression from left to right, and says at which place it is wrong."""

from tidegate.simulator.structured.regex.expressions import (
    BLANKS,
    CODE_MAX,
    DIGITS,
    WORDS,
    Characters,
    Expression,
    Ranges,
    Repeat,
    Unreadable,
    characters,
    others,
)

NESTING_MAX = 64
COUNT_DIGITS_MAX = 6
_CLASSES = {"d": DIGITS, "w": WORDS, "s": BLANKS}
CLASSES: dict[str, Ranges] = _CLASSES | {
    letter.upper(): others(ranges) for letter, ranges in _CLASSES.items()
}
_CONTROLS = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", "v": "\v", "0": "\0"}
_HEX_DIGITS = {"x": 2, "u": 4, "U": 8}


class Scanner:
    """A text and a place in it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self._depth = 0

    @property
    def next(self) -> str:
        """Return the character that comes; empty at the end."""
        return self.text[self.place : self.place + 1]

    def take(self) -> str:
        """Return the character that comes, and go past it."""
        found = self.next
        if not found:
            raise self.wrong("it breaks off")
        self.place += 1
        return found

    def accept(self, text: str) -> bool:
        """Go past this text if it comes, and return whether it did."""
        if not self.text.startswith(text, self.place):
            return False
        self.place += len(text)
        return True

    def expect(self, text: str) -> None:
        """Go past this text, which must come."""
        if not self.accept(text):
            raise self.wrong(f"'{text}' is missing")

    def wrong(self, why: str) -> Unreadable:
        """Return the complaint that something is wrong at this place."""
        return Unreadable(f"{why} (at character {self.place})")

    def enter(self) -> None:
        """Go one level deeper."""
        self._depth += 1
        if self._depth > NESTING_MAX:
            raise self.wrong(f"it is nested more than {NESTING_MAX} levels deep")

    def leave(self) -> None:
        """Come back from a level."""
        self._depth -= 1

    # What regular expressions and grammars write alike

    def escaped(self) -> str:
        """Return the character that an escape stands for; the backslash is behind."""
        letter = self.take()
        if letter in _HEX_DIGITS:
            return self._by_number(letter)
        if letter in _CONTROLS:
            if letter == "0" and self.next.isdigit():
                raise self.wrong("octal escapes are not supported")
            return _CONTROLS[letter]
        if letter.isascii() and letter.isalnum():
            raise self.wrong(f"the escape '\\{letter}' is not supported")
        return letter

    def _by_number(self, letter: str) -> str:
        if letter == "u" and self.accept("{"):
            digits = ""
            while not self.accept("}"):
                digits += self.take()
                if len(digits) > _HEX_DIGITS["U"]:
                    raise self.wrong("an escape is too long")
        else:
            digits = "".join([self.take() for _ in range(_HEX_DIGITS[letter])])
        if not digits or set(digits) - set("0123456789abcdefABCDEF"):
            raise self.wrong("an escape wants hexadecimal digits")
        code = int(digits, 16)
        if code > CODE_MAX or 0xD800 <= code <= 0xDFFF:  # noqa: PLR2004 - halves of pairs
            raise self.wrong("an escape is of no character")
        return chr(code)

    def character_class(self) -> Characters:
        """Return the class whose opening bracket is behind."""
        is_negated = self.accept("^")
        found: list[tuple[int, int]] = []
        if self.next == "]":
            raise self.wrong("a class is empty")
        while not self.accept("]"):
            first = self._member(found)
            if first is None:
                if self.next == "-" and self.text[self.place + 1 : self.place + 2] != "]":
                    raise self.wrong("a range begins with a class")
                continue
            last: int | None = first
            if self.next == "-" and self.text[self.place + 1 : self.place + 2] not in {"]", ""}:
                self.take()
                last = self._member([])
            if last is None or last < first:
                raise self.wrong("a range has no end after its beginning")
            found.append((first, last))
        ranges = tuple(found)
        return characters(others(ranges) if is_negated else ranges)

    def _member(self, found: list[tuple[int, int]]) -> int | None:
        """Return the code of a character; None where a whole class was added."""
        if not self.accept("\\"):
            return ord(self.take())
        if self.next in CLASSES:
            found += CLASSES[self.take()]
            return None
        return ord("\b" if self.accept("b") else self.escaped())

    def repeated(self, item: Expression) -> Expression:
        """Return an item as often as the sign says that comes, if one does."""
        bounds = self.bounds()
        return item if bounds is None else Repeat(item, *bounds)

    def bounds(self) -> tuple[int, int | None] | None:
        """Return how often something comes, if that is said here: `*`, `+`, `?` or `{2,3}`."""
        for sign, bounds in (("*", (0, None)), ("+", (1, None)), ("?", (0, 1))):
            if self.accept(sign):
                return bounds
        start = self.place
        if not self.accept("{"):
            return None
        low = self.count()
        high = low
        if low is not None and self.accept(","):
            high = self.count()
        if low is None or not self.accept("}"):
            self.place = start
            return None
        if high is not None and high < low:
            raise self.wrong("a count ends before it begins")
        return low, high

    def count(self) -> int | None:
        """Return the number that comes, if one does."""
        digits = ""
        while self.next.isascii() and self.next.isdigit():
            digits += self.take()
        if len(digits) > COUNT_DIGITS_MAX:
            raise self.wrong("a count is too large")
        return int(digits) if digits else None
