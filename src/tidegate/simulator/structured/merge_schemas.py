"""Two JSON schemas that hold at once, as one: of `allOf`, of references and of alternatives."""

from tidegate.simulator.structured.regex.expressions import Unreadable
from tidegate.simulator.structured.scalars import Json, Schema, is_among, same

_LARGER = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_SMALLER = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_OF_SCHEMAS = frozenset({"properties", "$defs", "definitions", "patternProperties"})
_SCHEMAS = frozenset({"items", "additionalProperties", "unevaluatedProperties", "propertyNames"})
_LISTS = frozenset({"required", "allOf", "enum"})
# They say nothing about values.
_REMARKS = frozenset(
    {
        *("title", "description", "default", "examples", "deprecated", "readOnly", "writeOnly"),
        *("$schema", "$id", "$comment", "$anchor"),
    }
)


def both(first: Schema, second: Schema) -> dict[str, Json]:
    """Return a schema that accepts what two accept.

    Raises:
        Unreadable: they can't be put into one, or accept nothing together.
    """
    result: dict[str, Json] = dict(first)
    for name, value in second.items():
        there = result.get(name)
        if name not in result or name in _REMARKS or same(there, value):
            result[name] = value
        else:
            result[name] = _united(name, there, value)
    return result


def _united(name: str, first: Json, second: Json) -> Json:
    if name in _SCHEMAS:
        return _at_once(first, second)
    if name == "type":
        return _types(first, second)
    match first, second:
        case ((int() | float()), (int() | float())) if name in _LARGER or name in _SMALLER:
            return max(first, second) if name in _LARGER else min(first, second)
        case dict(), dict() if name in _OF_SCHEMAS:
            return first | {
                key: _at_once(first[key], value) if key in first else value
                for key, value in second.items()
            }
        case list(), list() if name in _LISTS:
            keeps = name == "enum"
            return [each for each in first if not keeps or is_among(each, second)] + [
                each for each in second if not keeps and not is_among(each, first)
            ]
        case _:
            raise Unreadable(f"'{name}' is said twice, and differently")


def _at_once(first: Json, second: Json) -> Json:
    if first is False or second is False:
        return False
    if first is True or second is True:
        return second if first is True else first
    return first if same(first, second) else {"allOf": [first, second]}


def _types(first: Json, second: Json) -> Json:
    found = [
        name if name in _listed(second) else "integer"
        for name in _listed(first)
        if name in _listed(second)
        or (name == "integer" and "number" in _listed(second))
        or (name == "number" and "integer" in _listed(second))
    ]
    if not found:
        raise Unreadable("no value has two types")
    return list(dict.fromkeys(found))


def _listed(kind: Json) -> list[str]:
    if isinstance(kind, list):
        return [each for each in kind if isinstance(each, str)]
    return [kind] if isinstance(kind, str) else []
