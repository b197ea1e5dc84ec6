"""JSON values that a schema accepts: what constrained decoding would let a model say.

It speaks the part of JSON Schema that structured outputs use. A schema that asks for something
else, or that no value fits, is refused; so is one that leads nowhere but deeper into itself.
"""

import math
from collections.abc import Mapping, Sequence

import msgspec

from tidegate.simulator.dice import Dice
from tidegate.simulator.engine import tokens
from tidegate.simulator.refusal import Refused

DEPTH_MAX = 24
NODES_MAX = 10_000
ITEMS_MAX = 1_024
GIVEN_BYTES_MAX = 256 * 1024
TEXT_CHARACTERS_MAX = 4_096
_DEPTH_OF_EXTRAS = 3
_USUAL_ITEMS_MAX = 3
_NUMBERS_MAX = 100
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_UNSUPPORTED = ("pattern", "patternProperties", "not", "if", "dependentSchemas", "contains")

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]
Schema = Mapping[str, Json]

_FORMATS = {
    "date-time": "2026-01-02T03:04:05Z",
    "date": "2026-01-02",
    "time": "03:04:05Z",
    "duration": "P1D",
    "email": "someone@example.com",
    "hostname": "host.example.com",
    "ipv4": "192.0.2.1",
    "ipv6": "2001:db8::1",
    "uri": "https://example.com/a",
    "uuid": "00000000-0000-4000-8000-000000000000",
}


def parse(data: msgspec.Raw | bytes, param: str) -> Json:
    """Return a schema from its JSON text, or from a JSON text that holds it as a text.

    Raises:
        Refused: it is not JSON.
    """
    try:
        found: Json = msgspec.json.decode(data)
        if isinstance(found, str):
            found = msgspec.json.decode(found)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"The schema is not JSON: {error}", param=param) from error
    return found


def write(schema: Json, number: int, param: str) -> str:
    """Return the JSON text of a value that the schema accepts, chosen by a number.

    Raises:
        Refused: the schema asks for something unknown, or for what does not exist.
    """
    value = Author(schema, Dice(number), param).value(schema, 0)
    return msgspec.json.encode(value).decode()


class Author:
    """Makes up one value for a schema."""

    def __init__(self, root: Json, dice: Dice, param: str) -> None:
        self._root = root
        self._dice = dice
        self._param = param
        self._nodes = 0
        self._given_bytes = 0

    def value(self, schema: Json, depth: int) -> Json:
        """Return a value that a schema accepts."""
        self._nodes += 1
        if self._nodes > NODES_MAX or depth > DEPTH_MAX:
            raise self._refused("it is too deep or too large, or has no end")
        if schema is True:
            return tokens.word(self._dice.roll(tokens.WORDS)).strip()
        if not isinstance(schema, dict):
            raise self._refused("a schema is an object")
        found = self._resolved(schema, depth)
        for name in _UNSUPPORTED:
            if name in found:
                raise self._refused(f"'{name}' is not supported")
        if "const" in found:
            return self._given(found["const"])
        choices = found.get("enum")
        if isinstance(choices, list):
            return self._given(self._one_of(choices, "enum"))
        return self._of_type(found, depth)

    def _given(self, value: Json) -> Json:
        """Return a value of the schema's own, as long as they are not too large together."""
        self._given_bytes += len(msgspec.json.encode(value))
        if self._given_bytes > GIVEN_BYTES_MAX:
            raise self._refused("its constants are too large")
        return value

    def _resolved(self, schema: Schema, depth: int) -> Schema:
        """Return a schema without references and alternatives."""
        for _ in range(DEPTH_MAX):
            if "$ref" in schema:
                target = self._target(schema["$ref"])
                rest = {name: value for name, value in schema.items() if name != "$ref"}
                schema = {**target, **rest}
                continue
            name = next((name for name in ("anyOf", "oneOf") if name in schema), None)
            if name is not None:
                schema = self._with_alternative(schema, name, depth)
                continue
            if "allOf" in schema:
                schema = self._merged(schema)
                continue
            return schema
        raise self._refused("its references lead nowhere")

    def _with_alternative(self, schema: Schema, name: str, depth: int) -> Schema:
        choices = schema[name]
        if not isinstance(choices, list) or not choices:
            raise self._refused(f"'{name}' is a list of schemas")
        # Deep down the last alternative that is a leaf ends what would go on for ever.
        leaves = [choice for choice in choices if self._is_leaf(choice)]
        if depth > _DEPTH_OF_EXTRAS and leaves:
            choices = leaves
        choice = self._one_of(choices, name)
        rest = {key: value for key, value in schema.items() if key != name}
        return self._both(rest, self._object(choice))

    def _is_leaf(self, schema: Json) -> bool:
        if not isinstance(schema, dict):
            return False
        return "$ref" not in schema and schema.get("type") not in {"object", "array", None}

    def _merged(self, schema: Schema) -> Schema:
        merged: Schema = {key: value for key, value in schema.items() if key != "allOf"}
        parts = schema["allOf"]
        if not isinstance(parts, list):
            raise self._refused("'allOf' is a list of schemas")
        for part in parts:
            inner = self._object(part)
            if "$ref" in inner:
                inner = {**self._target(inner["$ref"]), **inner}
                inner = {key: value for key, value in inner.items() if key != "$ref"}
            merged = self._both(merged, inner)
        return merged

    def _both(self, first: Schema, second: Schema) -> Schema:
        """Return a schema with the members of two; objects and lists of names are united."""
        result: dict[str, Json] = dict(first)
        for name, value in second.items():
            there = result.get(name)
            if isinstance(there, dict) and isinstance(value, dict):
                result[name] = {**there, **value}
            elif name == "required" and isinstance(there, list) and isinstance(value, list):
                result[name] = there + value
            else:
                result[name] = value
        return result

    def _target(self, reference: Json) -> Schema:
        found: Json = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise self._refused("only references within the schema are followed")
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        return self._object(found)

    def _object(self, schema: Json) -> Schema:
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise self._refused("a schema is an object")
        return schema

    def _of_type(self, schema: Schema, depth: int) -> Json:
        kind = schema.get("type")
        if isinstance(kind, list):
            simple = [name for name in kind if name not in {"object", "array", "null"}]
            kind = self._one_of(simple or kind, "type")
        if kind is None:
            kind = _implied(schema)
        if kind not in _TYPES:
            raise self._refused(f"there is no type {kind!r}")
        if kind == "array":
            return self._array(schema, depth)
        if kind == "object":
            return self._members(schema, depth)
        return self._simple(schema, kind)

    def _simple(self, schema: Schema, kind: Json) -> Json:
        if kind == "null":
            return None
        if kind == "boolean":
            return bool(self._dice.roll(2))
        if kind == "string":
            return self._text(schema)
        return self._number(schema, is_whole=kind == "integer")

    # Numbers and texts

    def _number(self, schema: Schema, *, is_whole: bool) -> int | float:
        step = self._bound(schema, "multipleOf")
        if step is not None and step <= 0:
            raise self._refused("'multipleOf' must be above 0")
        if step is None and is_whole:
            step = 1
        low, low_open = self._limit(schema, "minimum", "exclusiveMinimum", is_low=True)
        high, high_open = self._limit(schema, "maximum", "exclusiveMaximum", is_low=False)
        if low is None and high is None:
            low, high = 0, _NUMBERS_MAX * (step or 1)
        elif low is None:
            assert high is not None, schema
            low = high - _NUMBERS_MAX * (step or 1)
        elif high is None:
            high = low + _NUMBERS_MAX * (step or 1)
        assert high is not None, schema
        if step is None:
            return self._fraction(low, high, is_open=low_open or high_open)
        first = math.floor(low / step) + 1 if low_open else math.ceil(low / step)
        last = math.ceil(high / step) - 1 if high_open else math.floor(high / step)
        if first > last:
            raise self._refused("no number lies within its bounds")
        result = self._dice.between(first, last) * step
        return int(result) if is_whole else result

    def _fraction(self, low: float, high: float, *, is_open: bool) -> float:
        if low > high or (is_open and low == high):
            raise self._refused("no number lies within its bounds")
        if low == high:
            return low
        return low + (high - low) * self._dice.between(1, 99) / 100

    def _limit(
        self, schema: Schema, name: str, open_name: str, *, is_low: bool
    ) -> tuple[float | None, bool]:
        closed, opened = self._bound(schema, name), self._bound(schema, open_name)
        if closed is None or opened is None:
            return (opened, True) if closed is None else (closed, False)
        opened_wins = opened >= closed if is_low else opened <= closed
        return (opened, True) if opened_wins else (closed, False)

    def _bound(self, schema: Schema, name: str) -> float | None:
        value = schema.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self._refused(f"'{name}' is a number")
        if not math.isfinite(value) or abs(value) > 1e15:  # noqa: PLR2004 - still exact as a float
            raise self._refused(f"'{name}' is too large")
        return value

    def _text(self, schema: Schema) -> str:
        shape = schema.get("format")
        low = self._size(schema, "minLength", 0)
        high = self._size(schema, "maxLength", TEXT_CHARACTERS_MAX)
        if isinstance(shape, str) and shape in _FORMATS:
            return _FORMATS[shape]
        if low > high or low > TEXT_CHARACTERS_MAX:
            raise self._refused("no text has a length within its bounds")
        words = [tokens.word(self._dice.roll(tokens.WORDS)) for _ in range(1 + self._dice.roll(3))]
        text = "".join(words).strip()[:high]
        return text + "a" * (low - len(text))

    def _size(self, schema: Schema, name: str, otherwise: int) -> int:
        value = self._bound(schema, name)
        return otherwise if value is None else max(0, int(value))

    # Lists and objects

    def _array(self, schema: Schema, depth: int) -> Json:
        low = self._size(schema, "minItems", 0)
        high = self._size(schema, "maxItems", max(low, _USUAL_ITEMS_MAX))
        if low > high or low > ITEMS_MAX:
            raise self._refused("no list has a length within its bounds")
        first = schema.get("prefixItems")
        starts: Sequence[Json] = first if isinstance(first, list) else ()
        rest = schema.get("items", True)
        if rest is False:
            high = min(high, len(starts))
        usual = 0 if depth > _DEPTH_OF_EXTRAS else self._dice.between(1, _USUAL_ITEMS_MAX)
        count = min(max(low, usual, min(len(starts), high)), high)
        items: list[Json] = []
        for place in range(count):
            each = starts[place] if place < len(starts) else rest
            items.append(self._item(each, items, depth, is_unique=bool(schema.get("uniqueItems"))))
        return items

    def _item(self, schema: Json, before: list[Json], depth: int, *, is_unique: bool) -> Json:
        for _ in range(64 if is_unique else 1):
            item = self.value(schema, depth + 1)
            if not is_unique or item not in before:
                return item
        raise self._refused("there are too few different items")

    def _members(self, schema: Schema, depth: int) -> Json:
        known = schema.get("properties")
        properties: Mapping[str, Json] = known if isinstance(known, dict) else {}
        required = schema.get("required")
        listed = required if isinstance(required, list) else []
        wanted = dict.fromkeys(name for name in listed if isinstance(name, str))
        if depth <= _DEPTH_OF_EXTRAS:
            wanted |= {name: None for name in properties if self._dice.roll(2)}
        extra = schema.get("additionalProperties", True)
        order = [name for name in properties if name in wanted]
        order += [name for name in wanted if name not in properties]
        members: dict[str, Json] = {}
        for name in order:
            if name not in properties and extra is False:
                raise self._refused(f"'{name}' is required and not permitted")
            members[name] = self.value(properties.get(name, extra), depth + 1)
        while len(members) < self._size(schema, "minProperties", 0):
            if extra is False or len(members) > ITEMS_MAX:
                raise self._refused("no object has as many members as it asks for")
            members[f"member_{len(members)}"] = self.value(extra, depth + 1)
        return members

    def _one_of(self, choices: list[Json], name: str) -> Json:
        if not choices:
            raise self._refused(f"'{name}' is empty")
        return choices[self._dice.roll(len(choices))]

    def _refused(self, why: str) -> Refused:
        return Refused(f"The simulator can't follow this JSON schema: {why}.", param=self._param)


def _implied(schema: Schema) -> str:
    if "properties" in schema or "required" in schema or "additionalProperties" in schema:
        return "object"
    if "items" in schema or "prefixItems" in schema or "minItems" in schema:
        return "array"
    if "minimum" in schema or "maximum" in schema or "multipleOf" in schema:
        return "number"
    return "string"
