"""A validator that is not ours accepts what is made up for a schema, or it was refused."""

import json
import re

import jsonschema_rs
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tidegate.simulator.requests.refusal import Refused
from tidegate.simulator.structured import schemas
from tidegate.simulator.structured.regex.formats import FORMATS
from tidegate.simulator.structured.scalars import WORK_MAX, Json

_SIZES = st.integers(0, 5)
_NUMBERS = st.integers(-20, 20) | st.sampled_from([0.5, 2.25, -7.75])
_VALUES = st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=3) | st.just([1])
_PATTERNS = st.sampled_from(
    [r"^a+$", r"\d{3}-\d{2}", "^(red|blue)$", "[^a-z ]{2,4}", "x|y.z?", r"^\w+@\w+\.(com|org)$"]
)
_TEXT = st.fixed_dictionaries(
    {"type": st.just("string")},
    optional={"minLength": _SIZES, "maxLength": st.integers(0, 9), "pattern": _PATTERNS},
)
_FORMAT = st.fixed_dictionaries(
    {"type": st.just("string"), "format": st.sampled_from([*FORMATS, "unheard-of"])}
)
_NUMBER = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])},
    optional={
        "minimum": _NUMBERS,
        "maximum": _NUMBERS,
        "exclusiveMinimum": _NUMBERS,
        "exclusiveMaximum": _NUMBERS,
        "multipleOf": st.sampled_from([0.1, 0.25, 1, 2.5, 3]),
    },
)
_CLOSED = st.fixed_dictionaries({}, optional={"type": st.sampled_from(["string", "integer"])})
_ENUM = st.builds(
    lambda values, more: {"enum": values, **more},
    st.lists(_VALUES, min_size=1, max_size=4),
    _CLOSED,
)
_LEAVES = (
    _TEXT | _FORMAT | _NUMBER | _ENUM | st.sampled_from([True, {}, {"const": {"a": [1]}}])
    | st.sampled_from([{"type": ["string", "null"]}, {"type": "boolean"}, {"$ref": "#/$defs/leaf"}])
)  # fmt: skip


def _around(inner: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    names = st.sampled_from(["a", "b", "c", "d"])
    members = {
        "properties": st.dictionaries(names, inner, max_size=3),
        "required": st.lists(names, max_size=2, unique=True),
        "additionalProperties": st.booleans() | inner,
        "minProperties": _SIZES,
        "maxProperties": _SIZES,
    }
    return (
        st.fixed_dictionaries({"type": st.just("object")}, optional=members)
        | st.builds(
            lambda pattern, value, low: {
                "type": "object",
                "patternProperties": {pattern: value},
                "additionalProperties": False,
                "minProperties": low,
            },
            _PATTERNS,
            inner,
            _SIZES,
        )
        | st.builds(
            lambda names, low: {"type": "object", "propertyNames": names, "minProperties": low},
            _TEXT,
            _SIZES,
        )
        | st.fixed_dictionaries(
            {"type": st.just("array")},
            optional={
                "items": inner | st.just(value=False),
                "prefixItems": st.lists(inner, min_size=1, max_size=2),
                "minItems": _SIZES,
                "maxItems": _SIZES,
                "uniqueItems": st.booleans(),
            },
        )
        | st.builds(lambda options: {"anyOf": options}, st.lists(inner, min_size=1, max_size=3))
        | st.builds(lambda parts: {"allOf": parts}, st.lists(inner, min_size=1, max_size=2))
    )


SCHEMAS = st.recursive(_LEAVES, _around, max_leaves=6)
ROOTS = st.builds(lambda leaf, rest: {"$defs": {"leaf": leaf}, "allOf": [rest]}, _TEXT, SCHEMAS)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=ROOTS, number=st.integers(0, 1_000))
def test_what_is_written_is_valid(schema: dict[str, Json], number: int) -> None:
    try:
        text = schemas.write(schema, number, "p").text
    except Refused:
        return
    jsonschema_rs.validate(schema, json.loads(text), validate_formats=True)


@pytest.mark.parametrize("shape", sorted(FORMATS))
def test_every_format_is_valid(shape: str) -> None:
    schema: dict[str, Json] = {"type": "string", "format": shape}
    found = {schemas.write(schema, number, "p").text for number in range(40)}
    for text in found:
        jsonschema_rs.validate(schema, json.loads(text), validate_formats=True)
    assert len(found) > 10


def test_most_schemas_are_followed() -> None:
    followed: list[dict[str, Json]] = [
        {"type": "string", "pattern": "^[A-Z]{2}[0-9]{4}$"},
        {"type": "string", "pattern": "[a-z]+", "minLength": 4, "maxLength": 4},
        {"type": "string", "format": "email", "maxLength": 18},
        {"type": "object", "patternProperties": {"^x_": {"type": "null"}}, "minProperties": 3},
        {"type": "object", "propertyNames": {"pattern": "^[a-c]{3}$"}, "minProperties": 3},
        {"allOf": [{"type": "number", "minimum": 3}, {"type": "integer", "maximum": 4}]},
        {"properties": {"a": False, "b": {"type": "null"}}, "maxProperties": 1},
    ]
    for schema in followed:
        for number in range(20):
            value = json.loads(schemas.write(schema, number, "p").text)
            jsonschema_rs.validate(schema, value, validate_formats=True)


@pytest.mark.parametrize(
    ("schema", "why"),
    [
        ({"type": "string", "pattern": "(?=a)b"}, "not supported"),
        ({"type": "string", "pattern": 7}, "text"),
        ({"type": "string", "pattern": "a{5}", "maxLength": 4}, "pattern and its length"),
        ({"type": "string", "pattern": "a", "format": "date"}, "together"),
        ({"allOf": [{"pattern": "a"}, {"pattern": "b"}]}, "twice"),
        ({"allOf": [{"type": "string"}, {"type": "null"}]}, "two types"),
        ({"type": "object", "minProperties": 2, "maxProperties": 1}, "members"),
        ({"type": "array", "items": False, "minItems": 1}, "schema"),
        ({"type": "object", "patternProperties": {"a": {}, "b": {}}}, "one pattern"),
        ({"properties": {"a": {}}, "propertyNames": {"pattern": "b"}}, "names by patterns"),
        ({"type": "object", "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        (
            {"type": "array", "minItems": 900, "items": {"type": "string", "pattern": "[a]{4000}"}},
            "patterns are too large",
        ),
    ],
)
def test_what_can_not_be_followed_says_why(schema: Json, why: str) -> None:
    with pytest.raises(Refused, match=re.escape(why)):
        schemas.write(schema, 1, "p")


def test_the_work_of_patterns_is_bounded_and_reported() -> None:
    schema: Json = {
        "type": "array",
        "minItems": 15,
        "maxItems": 15,
        "items": {"type": "string", "pattern": "[a]{4000}"},
    }
    assert WORK_MAX * 0.9 < schemas.write(schema, 1, "p").work <= WORK_MAX + 100
