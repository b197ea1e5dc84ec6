"""What the text of an answer must be: JSON, one of a few, or what a rule accepts."""

from collections.abc import Callable, Sequence

import msgspec

from tidegate.simulator.answers.plans import Limits, Plan, Wording, wording, written
from tidegate.simulator.answers.seeded import SeededChoices
from tidegate.simulator.requests.bodies import ResponseFormat, StructuredOutputs
from tidegate.simulator.requests.refusal import Refused
from tidegate.simulator.structured import schemas
from tidegate.simulator.structured.regex.expressions import Unreadable
from tidegate.simulator.structured.regex.regexes import read_regex
from tidegate.simulator.structured.regex.writing import Writer
from tidegate.simulator.structured.scalars import Json
from tidegate.simulator.structured.variants import varied

_STRUCTURED = "structured_outputs"
_FORMAT = "response_format"
_ANY_OBJECT: Json = {
    "type": "object",
    "minProperties": 2,
    "additionalProperties": {"type": "string"},
}

# Makes the plan of a choice from its number, where it is not free words.
Shape = Callable[[int, Limits], Plan]


def constraint(form: ResponseFormat | None, asked: StructuredOutputs | None) -> Shape | None:
    """Return the shape that a request wants for its text, or None for anything.

    Raises:
        Refused: it wants several at once, or nothing that can be made.
    """
    is_formed = form is not None and form.type != "text"
    if asked is None:
        return formatted(form) if form is not None and is_formed else None
    kinds = _kinds(asked)
    if len(kinds & {"json", "regex", "choice"}) > 1:
        raise Refused(
            "You can only use one kind of constraints for structured outputs "
            "('json', 'regex' or 'choice'). (parameter=structured_outputs)",
            param=_STRUCTURED,
        )
    if len(kinds) + is_formed > 1:
        raise Refused(
            "You can only use one kind of structured outputs constraint but multiple are "
            f"specified: {', '.join(sorted(kinds))}{' and response_format' * is_formed}"
        )
    if form is not None and is_formed:
        return formatted(form)
    if not kinds:
        raise Refused(
            "You must use one kind of structured outputs constraint but none are specified."
        )
    return _structured(asked, kinds.pop())


def _kinds(asked: StructuredOutputs) -> set[str]:
    kinds = {
        name
        for name in ("choice", "regex", "grammar", "structural_tag", "json_object")
        if getattr(asked, name) is not None
    }
    return kinds | ({"json"} if asked.json and bytes(asked.json) != b"null" else set())


def formatted(form: ResponseFormat) -> Shape:
    """Return the shape of a format that is not plain text."""
    if form.type == "json_schema":
        if form.json_schema is None:
            raise Refused(
                "When response_format type is 'json_schema', the 'json_schema' field must be "
                "provided. (parameter=response_format)",
                param=_FORMAT,
            )
        return json_shape(form.json_schema.definition, _FORMAT)
    if form.type == "json_object":
        return object_shape()
    raise Refused(f"The simulator does not offer the response_format {form.type!r}.", param=_FORMAT)


def _structured(asked: StructuredOutputs, kind: str) -> Shape:
    if kind == "json":
        return json_shape(asked.json, _STRUCTURED)
    if kind == "choice":
        return choice_shape(asked.choice or ())
    if kind == "json_object":
        if not asked.json_object:
            raise Refused(
                "structured_outputs.json_object must be True if set; omit structured_outputs to "
                "disable structured outputs"
            )
        return object_shape()
    if kind == "regex":
        return regex_shape(asked.regex or "")
    raise Refused(f"The simulator does not support structured_outputs.{kind}.", param=_STRUCTURED)


def choice_shape(choices: Sequence[str]) -> Shape:
    """Return the shape of one of some texts."""
    if not choices:
        raise Refused("Choice '[]' cannot be an empty list")
    return _text_shape(lambda number: (choices[SeededChoices(number).roll(len(choices))], 1))


def json_shape(data: msgspec.Raw, param: str) -> Shape:
    """Return the shape of JSON that a schema accepts; that there is some is tried at once."""
    if not data:
        return object_shape()
    return _schema_shape(schemas.parse(data, param), param)


def object_shape() -> Shape:
    """Return the shape of any JSON object."""
    return _schema_shape(_ANY_OBJECT, _FORMAT)


def _schema_shape(schema: Json, param: str) -> Shape:
    def make(number: int) -> tuple[str, int]:
        found = schemas.write(schema, number, param)
        return found.text, found.work

    return _text_shape(make)


def regex_shape(pattern: str) -> Shape:
    """Return the shape of a text that a regular expression accepts."""
    if "\0" in pattern:
        raise Refused("structured_outputs.regex must not contain a NUL character ('\\x00')")
    try:
        writer = Writer(read_regex(pattern))
    except Unreadable as error:
        raise Refused(f"Failed to transform regex into a grammar: {error}") from error
    return _text_shape(lambda number: (writer.write(SeededChoices(number)), writer.work_max))


def _text_shape(make: Callable[[int], tuple[str, int]]) -> Shape:
    def word(number: int) -> tuple[Wording, int]:
        text, work = make(number)
        return wording(text), work + len(text)

    words = varied(word)
    words(0)  # Whether there is one at all.
    return lambda number, limits: written(limits, words(number))
