"""Structural tags: texts with marked places that have a form of their own, such as calls.

The old way names the places (`structures`) and what begins them (`triggers`); the new way is a tree
of formats.
"""

from collections.abc import Callable, Sequence

import msgspec

from tidegate.simulator import schemas
from tidegate.simulator.dice import Dice, digest
from tidegate.simulator.engine import tokens
from tidegate.simulator.grammars.ebnf import read_ebnf
from tidegate.simulator.grammars.expressions import Grammar, Unreadable
from tidegate.simulator.grammars.regexes import read_regex
from tidegate.simulator.grammars.writing import Writer

DEPTH_MAX = 64
PARTS_MAX = 1_024


class _Structure(msgspec.Struct, frozen=True, rename={"definition": "schema"}):
    begin: str
    end: str
    definition: msgspec.Raw = msgspec.Raw(b"{}")


class _Format(msgspec.Struct, frozen=True):
    type: str
    value: str = ""
    pattern: str = ""
    grammar: str = ""
    json_schema: msgspec.Raw = msgspec.Raw(b"{}")
    elements: "list[_Format]" = []
    tags: "list[_Format]" = []
    begin: str = ""
    end: str | list[str] = ""
    content: "_Format | None" = None
    separator: str = ""
    at_least_one: bool = False


class _Told(msgspec.Struct, frozen=True):
    format: _Format | None = None
    structures: list[_Structure] | None = None
    triggers: list[str] | None = None


_decode = msgspec.json.Decoder(_Told).decode


class TagWriter:
    """Makes texts for one structural tag, which is JSON."""

    def __init__(self, data: bytes, param: str) -> None:
        """Read it.

        Raises:
            Unreadable: it is none.
        """
        self._param = param
        try:
            told = _decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(str(error)) from error
        self._told = told
        if told.structures is not None:
            self._check_structures(told.structures, told.triggers or [])
        elif told.format is None:
            raise Unreadable("it has neither 'format' nor 'structures'")
        self._writers: dict[str, Writer] = {}
        self._dice = Dice(0)
        self._work = 0

    @staticmethod
    def _check_structures(structures: Sequence[_Structure], triggers: Sequence[str]) -> None:
        if not structures:
            raise Unreadable("there is no structure")
        for each in structures:
            if not any(trigger and each.begin.startswith(trigger) for trigger in triggers):
                raise Unreadable(f"no trigger begins '{each.begin[:64]}'")

    def write(self, number: int) -> tuple[str, int]:
        """Return a text, and how much work it was.

        Raises:
            Unreadable: it has a format that is not offered, or is too large.
            Refused: a schema in it can't be followed.
        """
        self._dice, self._work = Dice(number), 0
        told = self._told
        if told.structures is not None:
            chosen = told.structures[self._dice.roll(len(told.structures))]
            inner = self._json(chosen.definition)
            return f"{self._word()} {chosen.begin}{inner}{chosen.end}", self._work
        assert told.format is not None, told
        return self._text(told.format, 0), self._work

    def _text(self, form: _Format, depth: int) -> str:
        self._work += 1
        if self._work > PARTS_MAX * DEPTH_MAX or depth > DEPTH_MAX:
            raise Unreadable("it is too deep or too large")
        match form.type:
            case "const_string":
                text = form.value
            case "json_schema":
                text = self._json(form.json_schema)
            case "any_text":
                text = self._word()
            case "regex":
                text = self._written(read_regex, form.pattern)
            case "grammar":
                text = self._written(read_ebnf, form.grammar)
            case _:
                text = self._parts(form, depth)
        return text

    def _parts(self, form: _Format, depth: int) -> str:
        match form.type:
            case "sequence":
                return "".join([self._text(each, depth + 1) for each in form.elements])
            case "or":
                return self._text(self._one_of(form.elements), depth + 1)
            case "tag":
                end = form.end if isinstance(form.end, str) else (form.end or [""])[0]
                inner = "" if form.content is None else self._text(form.content, depth + 1)
                return f"{form.begin}{inner}{end}"
            case "triggered_tags":
                before = "" if form.at_least_one else self._word() + " "
                return before + self._text(self._one_of(form.tags), depth + 1)
            case "tags_with_separator":
                count = 1 + self._dice.roll(2)
                tags = [self._text(self._one_of(form.tags), depth + 1) for _ in range(count)]
                return form.separator.join(tags)
            case _:
                raise Unreadable(f"the format '{form.type[:64]}' is not supported")

    def _one_of(self, formats: Sequence[_Format]) -> _Format:
        if not formats:
            raise Unreadable("there is nothing to choose from")
        return formats[self._dice.roll(len(formats))]

    def _json(self, schema: msgspec.Raw) -> str:
        found = schemas.write(
            schemas.parse(schema, self._param), digest(self._dice.roll(1 << 62)), self._param
        )
        self._work += found.work
        return found.text

    def _written(self, read: Callable[[str], Grammar], text: str) -> str:
        writer = self._writers.get(text)
        if writer is None:
            writer = self._writers[text] = Writer(read(text))
        self._work += writer.work_max
        return writer.write(self._dice)

    def _word(self) -> str:
        return tokens.word(self._dice.roll(tokens.WORDS)).strip()
