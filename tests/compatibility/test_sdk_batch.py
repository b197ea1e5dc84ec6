"""The way of a batch with the OpenAI SDK: upload, create, wait, read, delete."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path

import openai
import pytest
from openai import OpenAI

from testkit.users.sdk import SdkUser, sdk_user
from tidegate.testing.deployment import ok, request_line
from tidegate.upstreams.base import Call, Reply

LINES = request_line("one") + request_line("two", content="h\u00e9 \u2028 \U0001f30a")
DAY = 86_400
MONTH = 30 * DAY


async def answer(call: Call) -> Reply:
    if b"refuse me" in call.body:
        return Reply(status=400, headers={}, body=b'{"error":{"message":"no"}}')
    return ok("m-2026-11-21", tokens=3)


@pytest.fixture
async def user() -> AsyncIterator[SdkUser]:
    async with sdk_user(answer) as made:
        yield made


async def test_a_file_is_uploaded_by_path(user: SdkUser, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(LINES)
    file = await user.client.files.create(file=path, purpose="batch")
    assert file.filename == "prompts.jsonl"
    assert (file.object, file.purpose, file.status) == ("file", "batch", "processed")
    assert file.bytes == len(LINES)
    assert file.id.startswith("file-")
    assert file.expires_at == file.created_at + MONTH
    assert await user.client.files.retrieve(file.id) == file
    assert await user.content(file.id) == LINES


async def test_a_file_is_uploaded_as_bytes(user: SdkUser) -> None:
    file = await user.client.files.create(file=LINES, purpose="batch")
    assert (file.filename, file.status) == ("upload", "processed")
    assert await user.content(file.id) == LINES


async def test_a_file_is_uploaded_from_an_open_file(user: SdkUser, tmp_path: Path) -> None:
    path = tmp_path / "no-extension"
    path.write_bytes(LINES)
    with path.open("rb") as opened:
        file = await user.client.files.create(file=opened, purpose="batch")
    assert file.filename == "no-extension"
    assert await user.content(file.id) == LINES
    file = await user.client.files.create(file=io.BytesIO(LINES), purpose="batch")
    assert await user.content(file.id) == LINES


async def test_a_file_has_the_life_that_was_asked_for(user: SdkUser) -> None:
    for seconds in (3_600, MONTH):
        file = await user.client.files.create(
            file=LINES, purpose="batch", expires_after={"anchor": "created_at", "seconds": seconds}
        )
        assert file.expires_at == file.created_at + seconds
    for seconds in (3_599, MONTH + 1):
        with pytest.raises(openai.BadRequestError) as caught:
            await user.client.files.create(
                file=LINES,
                purpose="batch",
                expires_after={"anchor": "created_at", "seconds": seconds},
            )
        assert caught.value.param == "expires_after.seconds"


async def test_nobody_waits_for_processing(user: SdkUser) -> None:
    file_id = await user.upload(LINES)
    file = await user.client.files.wait_for_processing(file_id, max_wait_seconds=0)
    assert file.status == "processed"
    assert user.world.asked[-2:] == ["POST /v1/files", f"GET /v1/files/{file_id}"]


async def test_a_new_batch_shows_every_field(user: SdkUser) -> None:
    file_id = await user.upload(LINES)
    batch = await user.client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        metadata={"job": "nightly", "k" * 64: "v" * 512},
    )
    shown = batch.to_dict()
    assert batch.id.startswith("batch_")
    assert (batch.object, batch.status) == ("batch", "validating")
    assert (batch.endpoint, batch.completion_window) == ("/v1/chat/completions", "24h")
    assert batch.input_file_id == file_id
    assert batch.expires_at == batch.created_at + DAY
    assert batch.metadata == {"job": "nightly", "k" * 64: "v" * 512}
    assert shown["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert shown["usage"] == {
        "input_tokens": 0,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 0,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 0,
    }
    nulls = {name for name, value in shown.items() if value is None}
    stamps = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling")
    assert nulls == {
        *(f"{status}_at" for status in stamps),
        *("cancelled_at", "errors", "model", "output_file_id", "error_file_id"),
    }
    unset = type(batch).model_fields.keys() - batch.model_fields_set
    assert unset == set(), "each field is sent, if only as null"


async def test_a_batch_runs_from_the_first_call_to_the_last(user: SdkUser) -> None:
    batch = await user.end_of((await user.submit([LINES])).id)
    assert batch.status == "completed"
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 2, "completed": 2, "failed": 0}
    assert batch.error_file_id is None
    assert batch.errors is None
    assert batch.model == "m"
    assert batch.usage is not None
    assert (batch.usage.input_tokens, batch.usage.output_tokens) == (6, 6)
    assert batch.usage.total_tokens == 12
    stamps = [batch.created_at, batch.in_progress_at, batch.finalizing_at, batch.completed_at]
    assert [stamp for stamp in stamps if stamp is not None] == sorted(filter(None, stamps))
    assert None not in stamps
    assert batch.output_file_id is not None
    found = await user.results(batch.output_file_id)
    assert set(found) == {"one", "two"}
    for line in found.values():
        assert line.id.startswith("batch_req_")
        assert line.error is None
        assert line.response is not None
        assert line.response.status_code == 200
        assert line.response.request_id


async def test_content_is_read_in_every_way_of_the_sdk(user: SdkUser, tmp_path: Path) -> None:
    batch = await user.end_of((await user.submit([LINES])).id)
    assert batch.output_file_id is not None
    files = user.client.files
    whole = await files.content(batch.output_file_id)
    data = whole.content
    assert whole.text.encode() == data
    assert [line + "\n" for line in whole.iter_lines()] == data.decode().splitlines(keepends=True)
    whole.write_to_file(tmp_path / "output.jsonl")
    assert (tmp_path / "output.jsonl").read_bytes() == data
    async with files.with_streaming_response.content(batch.output_file_id) as stream:
        assert stream.headers["content-length"] == str(len(data))
        lines = [line async for line in stream.iter_lines()]
    assert lines == data.decode().splitlines()
    async with files.with_streaming_response.content(batch.output_file_id) as stream:
        assert b"".join([piece async for piece in stream.iter_bytes(7)]) == data


async def test_the_output_is_a_file_like_any_other(user: SdkUser) -> None:
    file_id = await user.upload(LINES + request_line("three", content="refuse me"))
    batch = await user.client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/chat/completions",
        completion_window="24h",
        output_expires_after={"anchor": "created_at", "seconds": 3_600},
    )
    batch = await user.end_of(batch.id)
    assert batch.completed_at is not None
    for name in (batch.output_file_id, batch.error_file_id):
        assert name is not None
        file = await user.client.files.retrieve(name)
        assert (file.purpose, file.status) == ("batch_output", "processed")
        assert file.filename.endswith(".jsonl")
        assert file.bytes == len(await user.content(name))
        assert file.expires_at is not None
        assert abs(file.expires_at - (batch.completed_at + 3_600)) <= 1
    outputs = await user.client.files.list(purpose="batch_output")
    assert {file.id for file in outputs.data} == {batch.output_file_id, batch.error_file_id}
    inputs = await user.client.files.list(purpose="batch")
    assert [file.id for file in inputs.data] == [file_id]


async def test_a_batch_whose_every_request_is_refused_completes(user: SdkUser) -> None:
    batch = await user.submit([request_line("no", content="refuse me")])
    batch = await user.end_of(batch.id)
    assert (batch.status, batch.output_file_id) == ("completed", None)
    assert batch.request_counts is not None
    assert batch.request_counts.to_dict() == {"total": 1, "completed": 0, "failed": 1}
    line = (await user.results(batch.error_file_id))["no"]
    assert line.error is None
    assert line.response is not None
    assert line.response.status_code == 400
    assert bytes(line.response.body) == b'{"error":{"message":"no"}}'


async def test_a_deleted_file_is_gone_and_its_batch_stays(user: SdkUser) -> None:
    batch = await user.end_of((await user.submit([LINES])).id)
    assert batch.output_file_id is not None
    deleted = await user.client.files.delete(batch.output_file_id)
    assert deleted.to_dict() == {"id": batch.output_file_id, "object": "file", "deleted": True}
    for call in (user.client.files.retrieve, user.client.files.content, user.client.files.delete):
        with pytest.raises(openai.NotFoundError):
            await call(batch.output_file_id)
    assert await user.client.batches.retrieve(batch.id) == batch
    with pytest.raises(openai.ConflictError):
        await user.client.batches.cancel(batch.id)


async def test_a_batch_keeps_its_input_though_the_file_is_deleted(user: SdkUser) -> None:
    batch = await user.submit([LINES])
    await user.client.files.delete(batch.input_file_id)
    ended = await user.end_of(batch.id)
    assert ended.status == "completed"
    assert set(await user.results(ended.output_file_id)) == {"one", "two"}


async def test_the_blocking_client_goes_the_same_way(user: SdkUser, tmp_path: Path) -> None:
    """Most users hold an `OpenAI`, not an `AsyncOpenAI`: its connections are its own."""
    path = tmp_path / "in.jsonl"
    path.write_bytes(LINES)

    def begin() -> str:
        with OpenAI(base_url=f"{user.world.url}/v1", api_key="unused") as client:
            file = client.files.wait_for_processing(
                client.files.create(file=path, purpose="batch").id
            )
            return client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            ).id

    def finish(batch_id: str) -> str:
        with OpenAI(base_url=f"{user.world.url}/v1", api_key="unused") as client:
            assert [batch.id for batch in client.batches.list(limit=1)] == [batch_id]
            batch = client.batches.retrieve(batch_id)
            with pytest.raises(openai.ConflictError):
                client.batches.cancel(batch_id)
            assert batch.output_file_id is not None
            text = client.files.content(batch.output_file_id).text
            for file in client.files.list(limit=1):
                assert client.files.delete(file.id).deleted
            assert client.files.list().data == []
            return text

    batch_id = await asyncio.to_thread(begin)
    await user.end_of(batch_id)
    text = await asyncio.to_thread(finish, batch_id)
    assert {json.loads(line)["custom_id"] for line in text.splitlines()} == {"one", "two"}
