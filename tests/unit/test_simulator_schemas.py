"""JSON that is made up for a schema fits it; a schema that can't be followed is refused."""

import json
import math
from datetime import UTC, datetime

import pytest

from tidegate.simulator.requests.refusal import Refused
from tidegate.simulator.structured import schemas
from tidegate.simulator.structured.scalars import TEXT_CHARACTERS_MAX, Json
from tidegate.simulator.structured.schemas import DEPTH_MAX, GIVEN_BYTES_MAX, ITEMS_MAX

SEEDS = range(40)
PERSON: Json = {
    "$defs": {
        "name": {"type": "string", "minLength": 2, "maxLength": 6},
        "node": {
            "type": "object",
            "properties": {
                "label": {"$ref": "#/$defs/name"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["label", "children", "next"],
            "additionalProperties": False,
        },
    },
    "type": "object",
    "properties": {
        "tree": {"$ref": "#/$defs/node"},
        "age": {"type": "integer", "exclusiveMinimum": 3, "maximum": 5},
        "size": {"type": "number", "multipleOf": 0.5, "minimum": 1, "exclusiveMaximum": 2},
        "kind": {"enum": ["a", 1, None]},
        "fixed": {"const": {"x": [1]}},
        "tags": {
            "type": "array",
            "items": {"enum": ["x", "y", "z"]},
            "minItems": 2,
            "maxItems": 3,
            "uniqueItems": True,
        },
        "pair": {
            "type": "array",
            "prefixItems": [{"type": "integer"}, {"type": "boolean"}],
            "items": False,
            "minItems": 2,
        },
        "both": {
            "allOf": [
                {"type": "object", "properties": {"a": {"type": "null"}}, "required": ["a"]},
                {"properties": {"b": {"type": "boolean"}}, "required": ["b"]},
            ]
        },
        "when": {"type": "string", "format": "date-time"},
        "many": {"type": ["string", "null"]},
    },
    "required": ["tree", "age", "size", "kind", "fixed", "tags", "pair", "both", "when", "many"],
    "additionalProperties": False,
}


def check_node(node: object, depth: int = 0) -> None:
    assert isinstance(node, dict)
    assert depth < DEPTH_MAX
    assert set(node) == {"label", "children", "next"}
    assert 2 <= len(node["label"]) <= 6
    for child in node["children"]:
        check_node(child, depth + 1)
    if node["next"] is not None:
        check_node(node["next"], depth + 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_value_fits_a_large_schema(seed: int) -> None:
    text = schemas.write(PERSON, seed, "p").text
    assert text == schemas.write(PERSON, seed, "p").text
    found = json.loads(text)
    assert isinstance(PERSON, dict)
    assert list(found) == list(PERSON["properties"])  # type: ignore[arg-type]  # a dict, see above
    check_node(found["tree"])
    assert found["age"] in {4, 5}
    assert found["size"] in {1.0, 1.5}
    assert found["kind"] in ["a", 1, None]
    assert found["fixed"] == {"x": [1]}
    assert 2 <= len(found["tags"]) == len(set(found["tags"])) <= 3
    assert set(found["tags"]) <= {"x", "y", "z"}
    assert [type(item) for item in found["pair"]] == [int, bool]
    assert found["both"]["a"] is None
    assert isinstance(found["both"]["b"], bool)
    assert datetime.fromisoformat(found["when"]).tzinfo is UTC
    assert found["many"] is None or isinstance(found["many"], str)


@pytest.mark.parametrize(
    ("schema", "fits"),
    [
        (True, lambda value: isinstance(value, str)),
        ({}, lambda value: isinstance(value, str)),
        ({"type": "null"}, lambda value: value is None),
        ({"type": "integer"}, lambda value: type(value) is int),
        ({"type": "integer", "minimum": -7, "maximum": -7}, lambda value: value == -7),
        ({"type": "integer", "maximum": -100}, lambda value: value <= -100),
        ({"type": "integer", "multipleOf": 7}, lambda value: value % 7 == 0),
        ({"type": "number", "minimum": 0, "maximum": 1}, lambda value: 0 <= value <= 1),
        (
            {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
            lambda value: 0 < value < 1,
        ),
        ({"type": "string", "minLength": 40}, lambda value: len(value) >= 40),
        ({"type": "string", "maxLength": 0}, lambda value: value == ""),
        (
            {"type": "string", "minLength": TEXT_CHARACTERS_MAX},
            lambda value: len(value) == TEXT_CHARACTERS_MAX,
        ),
        ({"type": "array", "maxItems": 0}, lambda value: value == []),
        (
            {"type": "array", "items": {"type": "null"}, "minItems": ITEMS_MAX},
            lambda value: value == [None] * ITEMS_MAX,
        ),
        ({"type": "object", "minProperties": 3}, lambda value: len(value) >= 3),
        ({"oneOf": [{"type": "boolean"}, {"const": 3}]}, lambda value: value in {True, False, 3}),
        ({"minimum": 3, "maximum": 3}, lambda value: value == 3),
    ],
    ids=lambda value: "fits" if callable(value) else str(value),
)
def test_small_schemas(schema: Json, fits: object) -> None:
    assert callable(fits)
    for seed in range(12):
        value = json.loads(schemas.write(schema, seed, "p").text)
        assert fits(value), value


@pytest.mark.parametrize(
    "schema",
    [
        7,
        None,
        False,
        {"type": "colour"},
        {"not": {}},
        {"enum": []},
        {"anyOf": []},
        {"anyOf": 7},
        {"allOf": 7},
        {"$ref": "http://elsewhere"},
        {"$ref": "#/absent"},
        {"$ref": "#"},
        {"type": "integer", "minimum": 2, "maximum": 1},
        {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
        {"type": "integer", "minimum": 1e300},
        {"type": "number", "multipleOf": 0},
        {"type": "number", "minimum": "low"},
        {"type": "string", "minLength": TEXT_CHARACTERS_MAX + 1},
        {"type": "string", "minLength": 3, "maxLength": 2},
        {"type": "array", "minItems": ITEMS_MAX + 1},
        {"type": "array", "items": {"const": 1}, "minItems": 2, "uniqueItems": True},
        {"type": "object", "required": ["a"], "additionalProperties": False},
        {"type": "object", "minProperties": 1, "additionalProperties": False},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"enum": ["x" * (GIVEN_BYTES_MAX + 1)]},
        {"type": "array", "items": {"const": "x" * 1_000}, "minItems": ITEMS_MAX},
    ],
    ids=lambda schema: str(schema)[:60],
)
def test_what_can_not_be_followed_is_refused(schema: Json) -> None:
    with pytest.raises(Refused) as caught:
        schemas.write(schema, 1, "response_format")
    error = json.loads(caught.value.body)["error"]
    assert caught.value.status == 400
    assert error["param"] == "response_format"
    assert len(error["message"]) < 200


def test_a_schema_that_is_no_json_is_refused() -> None:
    for data in (b"{", b'"{"', b"[" * 10_000):
        with pytest.raises(Refused):
            schemas.parse(data, "p")
    assert schemas.parse(b'"{}"', "p") == {}


def test_no_number_is_infinite() -> None:
    for seed in range(50):
        value = json.loads(schemas.write({"type": "number"}, seed, "p").text)
        assert math.isfinite(value)
