"""Values that a JSON schema lists itself (`enum`, `const`), as far as they fit the rest of it."""

from collections.abc import Mapping

from tidegate.simulator.structured.regex.expressions import Unreadable
from tidegate.simulator.structured.regex.formats import FORMATS
from tidegate.simulator.structured.scalars import Json, Schema, bound, is_among

# What can't be checked here of a value that is there already.
_RULES = frozenset(
    {
        *("pattern", "multipleOf", "properties", "required", "additionalProperties"),
        *("patternProperties", "propertyNames", "items", "prefixItems", "uniqueItems"),
        "unevaluatedProperties",
    }
)
_NAMES: Mapping[type, str] = {
    type(None): "null",
    bool: "boolean",
    int: "integer",
    str: "string",
    list: "array",
    dict: "object",
}


def listed(schema: Schema) -> list[Json] | None:
    """Return the values of a list that fit, or None where a schema lists none.

    Raises:
        Unreadable: beside the list stand rules that can't be checked.
    """
    values = schema.get("enum")
    found = values if isinstance(values, list) else None
    if "const" in schema:
        only = schema["const"]
        found = [only] if found is None or is_among(only, found) else []
    if found is None:
        return None
    rule = next((name for name in schema if name in _RULES), None)
    if rule is None and schema.get("format") in list(FORMATS):
        rule = "format"
    if rule is not None:
        raise Unreadable(f"'{rule}' beside a list of values is not supported")
    return [each for each in found if _fits(each, schema)]


def _fits(value: Json, schema: Schema) -> bool:
    if not _is_of_type(value, schema.get("type")):
        return False
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, int | float):
        return _is_between(value, schema, "minimum", "maximum")
    what = {str: "Length", list: "Items", dict: "Properties"}[type(value)]
    return _is_between(len(value), schema, f"min{what}", f"max{what}")


def _is_between(size: float, schema: Schema, low_name: str, high_name: str) -> bool:
    low, high = bound(schema, low_name), bound(schema, high_name)
    if (low is not None and size < low) or (high is not None and size > high):
        return False
    if low_name != "minimum":
        return True
    above, below = bound(schema, "exclusiveMinimum"), bound(schema, "exclusiveMaximum")
    return (above is None or size > above) and (below is None or size < below)


def _is_of_type(value: Json, kind: Json) -> bool:
    """Return whether a value is of a type, or of one of several; an unknown type permits all."""
    kinds = kind if isinstance(kind, list) else [kind]
    own = _type_of(value)
    return kind is None or own in kinds or (own == "integer" and "number" in kinds)


def _type_of(value: Json) -> str:
    if isinstance(value, float):
        return "integer" if value.is_integer() else "number"
    return _NAMES[type(value)]
