"""Batches that fail their validation: which lines are bad, and why, as the OpenAI SDK reads it."""

import json
from collections.abc import AsyncIterator

import pytest
from openai.types import Batch

from testkit.users.sdk import SdkUser, sdk_user
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.planning.settings import Planning, UnknownModel
from tidegate.processor.settings import Claims, Settings
from tidegate.testing.deployment import ok, request_line
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream

SOUND = json.loads(request_line("sound"))
QUICK = Claims(poll_seconds=0.02)


async def answer(call: Call) -> Reply:
    return ok()


@pytest.fixture
async def user() -> AsyncIterator[SdkUser]:
    async with sdk_user(answer) as made:
        yield made


def line(**changes: object) -> bytes:
    """Return a sound line with changes; None takes a member away."""
    members = {key: value for key, value in (SOUND | changes).items() if value is not None}
    return json.dumps(members).encode() + b"\n"


def body(**changes: object) -> dict[str, object]:
    members = (SOUND["body"] | changes).items()
    return {key: value for key, value in members if value is not None}


def told(batch: Batch) -> list[tuple[int | None, str | None, str | None]]:
    assert batch.errors is not None
    assert batch.errors.object == "list"
    assert batch.errors.data is not None
    assert all(error.message for error in batch.errors.data)
    return [(error.line, error.param, error.code) for error in batch.errors.data]


def assert_failed(batch: Batch) -> None:
    """Check that nothing of the batch ever ran."""
    assert batch.status == "failed"
    assert batch.failed_at is not None
    assert batch.failed_at >= batch.created_at
    assert batch.expires_at == batch.created_at + 86_400
    assert (batch.in_progress_at, batch.completed_at, batch.finalizing_at) == (None, None, None)
    assert (batch.output_file_id, batch.error_file_id) == (None, None)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}


async def test_every_bad_line_is_reported_with_its_place(user: SdkUser) -> None:
    cases: list[tuple[bytes, str | None, str | None]] = [
        (line(custom_id="first"), None, None),
        (b'{"custom_id": \n', None, "invalid_json_line"),
        (b"\r\n", None, None),  # Blank lines are passed over, and counted.
        (line(custom_id=None), "custom_id", "missing_required_parameter"),
        (line(method=None), "method", "missing_required_parameter"),
        (line(url=None), "url", "missing_required_parameter"),
        (line(body=None), "body", "missing_required_parameter"),
        (line(custom_id="get", method="GET"), "method", "invalid_method"),
        (line(custom_id="url", url="/v1/embeddings"), "url", "invalid_url"),
        (line(custom_id="text", body="hi"), "body", "invalid_type"),
        (line(custom_id="model", body=body(model=None)), "body.model", "invalid_request"),
        (line(custom_id="talk", body=body(messages=None)), "body.messages", "invalid_request"),
        (line(custom_id="s", body=body(stream=True)), "body.stream", "streaming_unsupported"),
        (line(custom_id=7), "custom_id", "invalid_type"),
        (line(custom_id="first"), "custom_id", "duplicate_custom_id"),
        (b"[1, 2]\n", None, "invalid_json_line"),
        (b'{"a": "\xff"}', None, "invalid_json_line"),
    ]
    batch = await user.end_of((await user.submit([row[0] for row in cases])).id)
    assert_failed(batch)
    assert told(batch) == [
        (number, param, code)
        for number, (_, param, code) in enumerate(cases, start=1)
        if code is not None
    ]


async def test_the_words_are_those_that_clients_match_on(user: SdkUser) -> None:
    lines = [line(), b"{\n", line(custom_id=None), line(url="/v1/x"), line()]
    batch = await user.end_of((await user.submit(lines)).id)
    assert batch.errors is not None
    assert batch.errors.data is not None
    assert [error.message for error in batch.errors.data[:3]] == [
        "This line is not parseable as valid JSON.",
        "Missing required parameter: 'custom_id'.",
        "The URL provided for this request does not match the batch endpoint.",
    ]
    assert "is a duplicate of another request" in (batch.errors.data[3].message or "")


async def test_the_first_hundred_are_reported_and_how_many_there_are(user: SdkUser) -> None:
    for count in (99, 100, 101, 250):
        batch = await user.end_of((await user.submit([line(), *[b"{\n"] * count])).id)
        found = told(batch)
        assert found[:100] == [
            (number, None, "invalid_json_line") for number in range(2, 2 + min(count, 100))
        ]
        if count <= 100:
            assert len(found) == count
            continue
        assert found[100:] == [(None, None, "too_many_errors")]
        assert batch.errors is not None
        assert batch.errors.data is not None
        last = batch.errors.data[-1]
        assert last.message == f"{count} problems were found; the first 100 are listed."


async def test_an_input_that_does_not_exist_fails_the_batch_later(user: SdkUser) -> None:
    for file_id in ("file-nowhere", "no id at all"):
        created = await user.create(file_id)
        assert created.status == "validating"
        batch = await user.end_of(created.id)
        assert_failed(batch)
        assert told(batch) == [(None, "file_id", "invalid_request")]
        assert batch.errors is not None
        assert batch.errors.data is not None
        assert f"Cannot find file {file_id}" in (batch.errors.data[0].message or "")


async def test_too_many_requests_fail_the_batch() -> None:
    settings = Settings(claims=QUICK, planning=Planning(lines_max=3, models_max=2))
    async with sdk_user(answer, processor=settings) as user:
        lines = [request_line(str(number)) for number in range(4)]
        batch = await user.end_of((await user.submit(lines[:3])).id)
        assert batch.status == "completed"
        batch = await user.end_of((await user.submit(lines)).id)
        assert_failed(batch)
        assert told(batch) == [(None, None, "too_many_tasks")]
        lines = [request_line(str(number), f"m-{number}") for number in range(3)]
        batch = await user.end_of((await user.submit(lines)).id)
        assert told(batch) == [(None, None, "too_many_models")]


async def test_an_unknown_model_may_fail_the_batch() -> None:
    routes = Routes(by_model={"m": Endpoint("m", MemoryUpstream(answer))})
    lines = [request_line("a", "m"), request_line("b", "elsewhere")]
    strict = Settings(claims=QUICK, planning=Planning(unknown_model=UnknownModel.REJECT_BATCH))
    async with sdk_user(routes, processor=strict) as user:
        batch = await user.end_of((await user.submit(lines)).id)
        assert_failed(batch)
        assert told(batch) == [(2, "body.model", "model_not_found")]


async def test_an_unknown_model_fails_its_own_lines_by_default() -> None:
    lines = [request_line("a", "m"), request_line("b", "elsewhere")]
    async with sdk_user({"m": answer}) as user:
        batch = await user.end_of((await user.submit(lines)).id)
        assert batch.status == "completed"
        assert set(await user.results(batch.output_file_id)) == {"a"}
        errors = await user.results(batch.error_file_id)
        assert set(errors) == {"b"}
        assert "model_not_found" in (await user.content(batch.error_file_id or "")).decode()


async def test_what_editors_leave_in_a_file_does_no_harm(user: SdkUser) -> None:
    first, last = request_line("a").rstrip(b"\n"), request_line("b").rstrip(b"\n")
    data = b"\xef\xbb\xbf" + first + b"\r\n\r\n   \n" + last
    batch = await user.end_of((await user.submit([data])).id)
    assert batch.status == "completed"
    assert set(await user.results(batch.output_file_id)) == {"a", "b"}
