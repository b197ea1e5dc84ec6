"""The OpenAPI document lists what is served: routes, statuses, request bodies and objects."""

import json
import re
from collections.abc import Mapping

import jsonschema_rs
import orjson
import pytest

from testkit.servers.api import ApiWorld
from tidegate.api import errors
from tidegate.api.app import routes_of
from tidegate.api.openapi import ANYWHERE, document
from tidegate.api.routing import ONE, REST
from tidegate.api.settings import Limits, Settings
from tidegate.application.context import Application
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.batch import Batch, Problem, Status
from tidegate.domain.file import File, Purpose
from tidegate.wire import batch_request as wire_batches
from tidegate.wire.batch_request import decode_batch_request
from tidegate.wire.objects import encode_batch, encode_file, encode_page

Json = Mapping[str, object]
WRONG_METHOD = 405


def parsed_document() -> Json:
    """Return the document as a reader of JSON gets it."""
    found: Json = json.loads(json.dumps(document(Settings())))
    return found


def inside(value: object, *path: str) -> Json:
    for name in path:
        assert isinstance(value, dict), path
        value = value[name]
    assert isinstance(value, dict), path
    return value


def operations() -> list[tuple[str, str, Json]]:
    return [
        (path, method, inside(operation))
        for path, methods in inside(parsed_document(), "paths").items()
        for method, operation in inside(methods).items()
    ]


def test_the_document_has_every_route_and_no_other() -> None:
    world = ApiWorld()
    app = Application(
        settings=Settings().batch_api,
        store=world.store,
        blobs=MemoryBlobs(),
        pubsub=world.pubsub,
        models=world.models,
        clock=world.clock,
        ids=world.ids,
    )
    served = {
        ("/".join("*" if step in {ONE, REST} else step for step in route.steps), method)
        for route in routes_of(app, Limits())
        for method in route.handlers
    }
    documented = set()
    for path, method, _ in operations():
        steps = path.removeprefix("/v1/").split("/")
        shape = "/".join("*" if step.startswith("{") else step for step in steps)
        documented.add((shape, method.upper()))
    assert documented == served
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_the_document_has_every_error_status_and_no_other() -> None:
    table = {row.status for _, row in errors._TABLE} | {errors._UNKNOWN.status}
    documented = {
        int(status) for _, _, item in operations() for status in inside(item, "responses")
    }
    assert {status for status in documented if status >= 400} == table - {WRONG_METHOD}
    for path, method, operation in operations():
        assert set(map(str, ANYWHERE)) < set(inside(operation, "responses")), (path, method)


def test_the_body_of_a_create_has_the_members_that_are_read() -> None:
    schema = inside(
        *(parsed_document(), "paths", "/v1/batches", "post", "requestBody"),
        *("content", "application/json", "schema"),
    )
    assert list(inside(schema, "properties")) == list(wire_batches._Body.__struct_fields__)
    example = {"input_file_id": "file-x", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    jsonschema_rs.Draft202012Validator(dict(schema)).validate(example)
    assert decode_batch_request(orjson.dumps(example)).endpoint == "/v1/embeddings"


def test_every_reference_names_a_schema() -> None:
    prefix = "#/components/schemas/"
    references = re.findall(rf'"\$ref": "{prefix}(\w+)"', json.dumps(document(Settings())))
    assert set(references) == inside(parsed_document(), "components", "schemas").keys()


def test_pages_have_the_shape_of_their_schemas() -> None:
    file = File(
        id="file-1",
        tenant="default",
        filename="in.jsonl",
        purpose=Purpose.BATCH,
        bytes=5,
        created_at=0.0,
    )
    batch = Batch(
        id="batch_1",
        tenant="default",
        endpoint="/v1/embeddings",
        input_file_id="file-1",
        completion_window="24h",
        status=Status.FAILED,
        created_at=1.5,
        expires_at=2.5,
        problems=(Problem(code="invalid_url", message="No.", line=1),),
    )
    for name, item in {"FilePage": encode_file(file), "BatchPage": encode_batch(batch)}.items():
        schema = {**parsed_document(), "$ref": f"#/components/schemas/{name}"}
        validator = jsonschema_rs.Draft202012Validator(schema)
        page = encode_page([item], first_id="a", last_id="a", has_more=False)
        validator.validate(orjson.loads(page))
        with pytest.raises(jsonschema_rs.ValidationError):
            validator.validate(orjson.loads(page.replace(b'"id":', b'"new":')))
