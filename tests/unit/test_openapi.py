"""The OpenAPI document says what is served: routes, statuses, bodies, and the shape of objects."""

import json
from collections.abc import Mapping
from dataclasses import replace

import jsonschema_rs
import orjson
import pytest
from hypothesis import given, strategies as st

from tidegate.api import errors
from tidegate.api.app import routes_of
from tidegate.api.openapi import ANYWHERE, document
from tidegate.api.routes import ONE, REST
from tidegate.api.settings import Limits, Settings
from tidegate.blobs.memory import MemoryBlobs
from tidegate.desk.desk import Desk
from tidegate.domain.batch import Batch, Counts, Problem, Status
from tidegate.domain.file import File, Purpose
from tidegate.domain.usage import Usage
from tidegate.testing.served_api import ApiWorld
from tidegate.wire import batches as wire_batches
from tidegate.wire.batches import batch_object, read_create
from tidegate.wire.errors import error_body
from tidegate.wire.files import deleted_file_object, file_object
from tidegate.wire.lists import list_body
from tidegate.wire.models import model_object, models_body
from tidegate.wire.schemas import SCHEMAS

Json = Mapping[str, object]
WRONG_METHOD = 405
TIMES = st.none() | st.floats(min_value=0, max_value=2**33)
TEXT = st.text(max_size=20)


def described() -> Json:
    """Return the document as a reader of JSON gets it."""
    found: Json = json.loads(json.dumps(document(Settings())))
    return found


def inside(value: object, *path: str) -> Json:
    for name in path:
        assert isinstance(value, dict), path
        value = value[name]
    assert isinstance(value, dict), path
    return value


def validator(name: str) -> jsonschema_rs.Draft202012Validator:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": dict(SCHEMAS)}}
    return jsonschema_rs.Draft202012Validator(schema)


def judge(name: str, encoded: bytes) -> None:
    validator(name).validate(orjson.loads(encoded))


def operations() -> list[tuple[str, str, Json]]:
    return [
        (path, method, inside(operation))
        for path, methods in inside(described(), "paths").items()
        for method, operation in inside(methods).items()
    ]


def test_the_document_has_every_route_and_no_other() -> None:
    world = ApiWorld()
    desk = Desk(
        settings=Settings().desk,
        store=world.store,
        blobs=MemoryBlobs(),
        signals=world.signals,
        models=world.models,
        clock=world.clock,
        ids=world.ids,
    )
    served = {
        ("/".join("*" if step in {ONE, REST} else step for step in route.steps), method)
        for route in routes_of(desk, Limits())
        for method in route.handlers
    }
    told = set()
    for path, method, _ in operations():
        steps = path.removeprefix("/v1/").split("/")
        shape = "/".join("*" if step.startswith("{") else step for step in steps)
        told.add((shape, method.upper()))
    assert told == served
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(set(names)) == len(names)


def test_every_status_of_the_table_of_errors_is_told_and_no_other() -> None:
    table = {row.status for _, row in errors._TABLE} | {errors._UNKNOWN.status}
    told = {int(status) for _, _, item in operations() for status in inside(item, "responses")}
    assert {status for status in told if status >= 400} == table - {WRONG_METHOD}
    for path, method, operation in operations():
        assert set(map(str, ANYWHERE)) < set(inside(operation, "responses")), (path, method)


def test_every_path_parameter_is_declared() -> None:
    for path, _, operation in operations():
        parameters = operation.get("parameters", [])
        assert isinstance(parameters, list)
        declared = {item["name"] for item in parameters if item["in"] == "path"}
        assert declared == {step[1:-1] for step in path.split("/") if step.startswith("{")}


def test_the_body_of_a_create_has_the_members_that_are_read() -> None:
    schema = inside(
        *(described(), "paths", "/v1/batches", "post", "requestBody"),
        *("content", "application/json", "schema"),
    )
    assert list(inside(schema, "properties")) == list(wire_batches._Body.__struct_fields__)
    example = {"input_file_id": "file-x", "endpoint": "/v1/embeddings", "completion_window": "24h"}
    jsonschema_rs.Draft202012Validator(dict(schema)).validate(example)
    assert read_create(orjson.dumps(example)).endpoint == "/v1/embeddings"


BATCH = Batch(
    id="batch_1",
    tenant="default",
    endpoint="/v1/embeddings",
    input_file_id="file-1",
    completion_window="24h",
    status=Status.VALIDATING,
    created_at=1.5,
    expires_at=2.5,
)


@given(
    status=st.sampled_from(Status),
    times=st.lists(TIMES, min_size=7, max_size=7),
    metadata=st.none() | st.dictionaries(TEXT, TEXT, max_size=3),
    problems=st.lists(
        st.builds(
            Problem, code=TEXT, message=TEXT, line=st.none() | st.integers(1, 2**53), param=TEXT
        ),
        max_size=2,
    ),
    models=st.lists(TEXT, max_size=3),
    waiting=st.none() | TEXT,
)
def test_every_batch_has_the_shape_that_is_told(
    *,
    status: Status,
    times: list[float | None],
    metadata: dict[str, str] | None,
    problems: list[Problem],
    models: list[str],
    waiting: str | None,
) -> None:
    in_progress, finalizing, completed, failed, expired, cancelling, cancelled = times
    batch = replace(
        BATCH,
        status=status,
        in_progress_at=in_progress,
        finalizing_at=finalizing,
        completed_at=completed,
        failed_at=failed,
        expired_at=expired,
        cancelling_at=cancelling,
        cancelled_at=cancelled,
        metadata=metadata,
        problems=tuple(problems),
        models=tuple(models),
        waiting_for=waiting,
        output_file_id="file-2" if models else None,
        counts=Counts(total=3, completed=1, failed=1),
        usage=Usage(input_tokens=5, cached_tokens=1, output_tokens=7, reasoning_tokens=2),
    )
    judge("Batch", batch_object(batch))
    page = list_body([batch_object(batch)], first_id="a", last_id="a", has_more=False)
    judge("BatchPage", page)


@given(
    purpose=st.sampled_from(Purpose),
    size=st.integers(0, 2**50),
    expires=TIMES,
    filename=TEXT,
)
def test_every_file_has_the_shape_that_is_told(
    *, purpose: Purpose, size: int, expires: float | None, filename: str
) -> None:
    file = File(
        id="file-1",
        tenant="default",
        filename=filename,
        purpose=purpose,
        bytes=size,
        created_at=0.0,
        expires_at=expires,
    )
    judge("File", file_object(file))
    judge("FilePage", list_body([file_object(file)], first_id="a", last_id="a", has_more=True))


def test_the_other_objects_have_the_shape_that_is_told() -> None:
    judge("FilePage", list_body([], first_id=None, last_id=None, has_more=False))
    judge("DeletedFile", deleted_file_object("file-1"))
    judge("Model", model_object("org/model", created_at=1.0))
    judge("ModelList", models_body([model_object("m", created_at=1.0)]))
    for param, kind in ((None, "server_error"), ("limit", "invalid_request_error")):
        judge("Error", error_body(message="m", kind=kind, param=param, code=None))


@pytest.mark.parametrize("change", ["more", "fewer"])
def test_a_member_too_many_or_too_few_is_found(change: str) -> None:
    members = orjson.loads(batch_object(BATCH))
    if change == "more":
        members["new"] = 1
    else:
        del members["usage"]
    with pytest.raises(jsonschema_rs.ValidationError):
        validator("Batch").validate(members)
