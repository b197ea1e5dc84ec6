"""JSON values that a schema accepts: what constrained decoding would let a model say.

It speaks the part of JSON Schema that structured outputs use. A schema that asks for something
else, or that no value fits, is refused; so is one that leads nowhere but deeper into itself.
"""

from collections.abc import Mapping, Sequence

import msgspec

from tidegate.simulator.answers.seeded import SeededChoices
from tidegate.simulator.engine import tokens
from tidegate.simulator.requests.refusal import Refused
from tidegate.simulator.structured.enums import listed
from tidegate.simulator.structured.merge_schemas import both
from tidegate.simulator.structured.regex.expressions import Unreadable
from tidegate.simulator.structured.scalars import TRIES_MAX, Json, ScalarWriter, Schema

DEPTH_MAX = 24
NODES_MAX = 10_000
ITEMS_MAX = 1_024
GIVEN_BYTES_MAX = 256 * 1024
_DEPTH_OF_EXTRAS = 3
_USUAL_ITEMS_MAX = 3
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_UNSUPPORTED = (
    *("not", "if", "contains", "dependentSchemas", "dependentRequired", "dependencies"),
    *("$dynamicRef", "$recursiveRef", "unevaluatedItems"),
)


class Written(msgspec.Struct, frozen=True):
    """The JSON text of a value, and how much work it was."""

    text: str
    work: int


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


def write(schema: Json, number: int, param: str) -> Written:
    """Return a value that the schema accepts, chosen by a number.

    Raises:
        Refused: the schema asks for something unknown, or for what does not exist.
    """
    author = SchemaWriter(schema, SeededChoices(number))
    try:
        value = author.value(schema, 0)
    except Unreadable as error:
        raise Refused(
            f"The simulator can't follow this JSON schema: {error}.", param=param
        ) from error
    return Written(msgspec.json.encode(value).decode(), author.work)


class SchemaWriter:
    """Makes up one value for a schema. Its methods raise `Unreadable`."""

    def __init__(self, root: Json, dice: SeededChoices) -> None:
        self._root = root
        self._dice = dice
        self._leaves = ScalarWriter(dice)
        self._nodes = 0
        self._given_bytes = 0

    @property
    def work(self) -> int:
        """Return how much was done so far."""
        return self._nodes + self._leaves.work

    def value(self, schema: Json, depth: int) -> Json:
        """Return a value that a schema accepts."""
        self._nodes += 1
        if self._nodes > NODES_MAX or depth > DEPTH_MAX:
            raise Unreadable("it is too deep or too large, or has no end")
        if schema is True:
            return tokens.word(self._dice.roll(tokens.WORDS)).strip()
        if not isinstance(schema, dict):
            raise Unreadable("a schema is an object")
        found = self._resolved(schema, depth)
        for name in _UNSUPPORTED:
            if name in found:
                raise Unreadable(f"'{name}' is not supported")
        choices = listed(found)
        if choices is not None:
            return self._given(self._one_of(choices, "enum"))
        return self._of_type(found, depth)

    def _given(self, value: Json) -> Json:
        """Return a value of the schema's own, as long as they are not too large together."""
        self._given_bytes += len(msgspec.json.encode(value))
        if self._given_bytes > GIVEN_BYTES_MAX:
            raise Unreadable("its constants are too large")
        return value

    def _resolved(self, schema: Schema, depth: int) -> Schema:
        """Return a schema without references and alternatives."""
        for _ in range(DEPTH_MAX):
            if "$ref" in schema:
                schema = both(self._target(schema["$ref"]), _without(schema, "$ref"))
                continue
            name = next((name for name in ("anyOf", "oneOf") if name in schema), None)
            if name is not None:
                schema = self._with_alternative(schema, name, depth)
                continue
            if "allOf" in schema:
                schema = self._merged(schema)
                continue
            return schema
        raise Unreadable("its references lead nowhere")

    def _with_alternative(self, schema: Schema, name: str, depth: int) -> Schema:
        choices = schema[name]
        if not isinstance(choices, list) or not choices:
            raise Unreadable(f"'{name}' is a list of schemas")
        # Deep down, the last alternative that is a leaf ends what would never end.
        leaves = [choice for choice in choices if self._is_leaf(choice)]
        if depth > _DEPTH_OF_EXTRAS and leaves:
            choices = leaves
        choice = self._one_of(choices, name)
        return both(_without(schema, name), self._object(choice))

    def _is_leaf(self, schema: Json) -> bool:
        if not isinstance(schema, dict):
            return False
        kind = schema.get("type")
        return "$ref" not in schema and isinstance(kind, str) and kind not in {"object", "array"}

    def _merged(self, schema: Schema) -> Schema:
        merged: Schema = _without(schema, "allOf")
        parts = schema["allOf"]
        if not isinstance(parts, list):
            raise Unreadable("'allOf' is a list of schemas")
        for part in parts:
            inner = self._object(part)
            if "$ref" in inner:
                inner = both(self._target(inner["$ref"]), _without(inner, "$ref"))
            merged = both(merged, inner)
        return merged

    def _target(self, reference: Json) -> Schema:
        found: Json = self._root
        if not isinstance(reference, str) or not reference.startswith("#"):
            raise Unreadable("only references within the schema are followed")
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and name.isdecimal() and int(name[:9]) < len(found):
                found = found[int(name[:9])]
            else:
                found = found.get(name) if isinstance(found, dict) else None
        return self._object(found)

    def _object(self, schema: Json) -> Schema:
        if schema is True:
            return {}
        if not isinstance(schema, dict):
            raise Unreadable("a schema is an object")
        return schema

    def _of_type(self, schema: Schema, depth: int) -> Json:
        kind = schema.get("type")
        if isinstance(kind, list):
            simple = [name for name in kind if name not in {"object", "array", "null"}]
            kind = self._one_of(simple or kind, "type")
        if kind is None:
            kind = _implied(schema)
        if kind not in _TYPES:
            raise Unreadable(f"there is no type {kind!r}")
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
            return self._leaves.text(schema)
        return self._leaves.number(schema, is_whole=kind == "integer")

    # Lists and objects

    def _array(self, schema: Schema, depth: int) -> Json:
        low = self._leaves.size(schema, "minItems", 0)
        high = self._leaves.size(schema, "maxItems", max(low, _USUAL_ITEMS_MAX))
        if low > high or low > ITEMS_MAX:
            raise Unreadable("no list has a length within its bounds")
        first = schema.get("prefixItems")
        starts: Sequence[Json] = first if isinstance(first, list) else ()
        rest = schema.get("items", True)
        if rest is False and low <= len(starts):
            high = min(high, len(starts))
        usual = 0 if depth > _DEPTH_OF_EXTRAS else self._dice.between(1, _USUAL_ITEMS_MAX)
        count = min(max(low, usual, min(len(starts), high)), high)
        items: list[Json] = []
        for place in range(count):
            each = starts[place] if place < len(starts) else rest
            items.append(self._item(each, items, depth, is_unique=bool(schema.get("uniqueItems"))))
        return items

    def _item(self, schema: Json, before: list[Json], depth: int, *, is_unique: bool) -> Json:
        for _ in range(TRIES_MAX if is_unique else 1):
            item = self.value(schema, depth + 1)
            if not is_unique or item not in before:
                return item
        raise Unreadable("there are too few different items")

    def _members(self, schema: Schema, depth: int) -> Json:
        properties = _properties(schema)
        low = self._leaves.size(schema, "minProperties", 0)
        high = self._leaves.size(schema, "maxProperties", max(low, ITEMS_MAX))
        wanted = _required(schema)
        if depth <= _DEPTH_OF_EXTRAS:
            likely = [name for name in properties if name not in wanted and self._dice.roll(2)]
            possible = [name for name in likely if properties[name] is not False]
            wanted |= dict.fromkeys(possible[: max(0, high - len(wanted))])
        if len(wanted) > high or low > high:
            raise Unreadable("no object has as many members as it asks for")
        extra = schema.get("additionalProperties", schema.get("unevaluatedProperties", True))
        order = [name for name in properties if name in wanted]
        order += [name for name in wanted if name not in properties]
        members: dict[str, Json] = {}
        for name in order:
            if name not in properties and extra is False:
                raise Unreadable(f"'{name}' is required and not permitted")
            members[name] = self.value(properties.get(name, extra), depth + 1)
        left = [name for name in properties if name not in members]
        while len(members) < low:
            name, inner = self._further(schema, left, extra, len(members))
            members[name] = self.value(inner, depth + 1)
        return members

    def _further(
        self, schema: Schema, left: list[str], extra: Json, place: int
    ) -> tuple[str, Json]:
        """Return the name and the schema of one more member: known, of a pattern, or made up."""
        properties = _properties(schema)
        if left:
            name = left.pop(0)
            return name, properties[name]
        patterns, names = schema.get("patternProperties"), schema.get("propertyNames")
        if isinstance(patterns, dict) and patterns:
            pattern, inner = next(iter(patterns.items()))
            name = self._leaves.text({"pattern": pattern})
            # What has no end of its own goes on, or there would be one name for some patterns.
            return name + (f"{place}" if "$" not in pattern else ""), inner
        if extra is False or place > ITEMS_MAX:
            raise Unreadable("no object has as many members as it asks for")
        if isinstance(names, dict):
            return f"{self.value({'type': 'string', **names}, DEPTH_MAX)}", extra
        return f"member_{place}", extra

    def _one_of(self, choices: list[Json], name: str) -> Json:
        if not choices:
            raise Unreadable(f"'{name}' is empty")
        return choices[self._dice.roll(len(choices))]


def _properties(schema: Schema) -> Mapping[str, Json]:
    """Return the schemas of known members.

    Raises:
        Unreadable: names are ruled by patterns beside, or by several of them.
    """
    known, patterns = schema.get("properties"), schema.get("patternProperties")
    names = schema.get("propertyNames")
    properties = known if isinstance(known, dict) else {}
    is_ruled = bool(patterns) or names not in (None, True, {})
    if is_ruled and (properties or schema.get("required") or (patterns and names)):
        raise Unreadable("names by patterns and other members are not supported together")
    if isinstance(patterns, dict) and len(patterns) > 1:
        raise Unreadable("only one pattern of names is supported")
    return properties


def _required(schema: Schema) -> dict[str, None]:
    listed = schema.get("required")
    names = listed if isinstance(listed, list) else []
    return dict.fromkeys(name for name in names if isinstance(name, str))


def _without(schema: Schema, name: str) -> dict[str, Json]:
    return {key: value for key, value in schema.items() if key != name}


_OF_OBJECTS = frozenset(
    {
        *("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
        *("patternProperties", "propertyNames", "unevaluatedProperties"),
    }
)
_OF_ARRAYS = frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"})
_OF_NUMBERS = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
)


def _implied(schema: Schema) -> str:
    if schema.keys() & _OF_OBJECTS:
        return "object"
    if schema.keys() & _OF_ARRAYS:
        return "array"
    return "number" if schema.keys() & _OF_NUMBERS else "string"
