"""Results that can be read while the batch still runs, through the OpenAI SDK and plain HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import openai
import pytest
from openai.types import Batch

from testkit.users.sdk import SdkUser, sdk_user
from tidegate.api.settings import Settings
from tidegate.application.settings import Settings as DeskSettings
from tidegate.testing.deployment import ok, request_line
from tidegate.upstreams.base import Call, Reply

LINES = [request_line(word, content=word) for word in ("quick-a", "quick-b", "slow")]


class Gate:
    """A model server whose answers to slow requests wait until the gate is open."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()

    async def answer(self, call: Call) -> Reply:
        if b"slow" in call.body:
            await self.opened.wait()
        if b"refuse" in call.body:
            return Reply(status=400, headers={}, body=b'{"error":{"message":"no"}}')
        return ok()


@asynccontextmanager
async def running(*, early: bool = True) -> AsyncIterator[tuple[SdkUser, Gate, Batch]]:
    """Give a batch of three lines, two of which have their result, and the gate of the third."""
    gate = Gate()
    settings = Settings(batch_api=DeskSettings(early_results=early))
    async with sdk_user(gate.answer, settings=settings) as user:
        batch = await user.submit(LINES)
        yield user, gate, await user.until(batch.id, two_are_done)


def two_are_done(batch: Batch) -> bool:
    return batch.request_counts is not None and batch.request_counts.completed == 2


def ids(content: bytes) -> set[str]:
    assert content.endswith(b"\n"), "only whole lines are shown"
    return {json.loads(line)["custom_id"] for line in content.splitlines()}


async def test_what_is_done_can_be_read_and_the_rest_follows() -> None:
    async with running() as (user, gate, batch):
        assert batch.status == "in_progress"
        assert batch.output_file_id is not None
        assert batch.error_file_id is None, "no file without a byte in it"
        assert batch.request_counts is not None
        assert batch.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 0}
        early = await user.client.files.content(batch.output_file_id)
        assert ids(early.content) == {"quick-a", "quick-b"}
        size = len(early.content)
        file = await user.client.files.retrieve(batch.output_file_id)
        assert (file.bytes, file.purpose, file.status) == (size, "batch_output", "processed")
        assert batch.output_file_id in [file.id async for file in user.client.files.list()]

        gate.opened.set()
        ended = await user.end_of(batch.id)
        assert ended.output_file_id == batch.output_file_id
        rest = await user.client.files.content(
            batch.output_file_id, extra_headers={"Range": f"bytes={size}-"}
        )
        assert rest.response.status_code == 206
        assert ids(rest.content) == {"slow"}
        # What could be read once keeps its place.
        assert await user.content(batch.output_file_id) == early.content + rest.content


async def test_a_poll_costs_nothing_until_there_is_more() -> None:
    async with running() as (user, gate, batch):
        url = f"/v1/files/{batch.output_file_id}/content"
        async with httpx.AsyncClient(base_url=user.world.url) as client:
            whole = await client.get(url)
            tag, size = whole.headers["etag"], len(whole.content)
            head = await client.head(url)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(size)
            assert head.headers["etag"] == tag
            poll = {"if-none-match": tag, "range": f"bytes={size}-"}
            same = await client.get(url, headers=poll)
            assert (same.status_code, same.content) == (304, b"")
            beyond = await client.get(url, headers={"range": f"bytes={size}-"})
            assert beyond.status_code == 416
            assert beyond.headers["content-range"] == f"bytes */{size}"
            last = await client.get(url, headers={"range": "bytes=-1"})
            assert (last.status_code, last.content) == (206, b"\n")

            gate.opened.set()
            await user.end_of(batch.id)
            more = await client.get(url, headers=poll)
            assert more.status_code == 206
            assert ids(more.content) == {"slow"}
            assert more.headers["etag"] != tag
            # A download that broke off goes on only in the state in which it began.
            resumed = {"range": "bytes=10-", "if-range": tag}
            assert (await client.get(url, headers=resumed)).status_code == 200
            resumed["if-range"] = more.headers["etag"]
            assert (await client.get(url, headers=resumed)).status_code == 206


async def test_errors_can_be_read_early_too() -> None:
    gate = Gate()
    async with sdk_user(gate.answer) as user:
        lines = [request_line("no", content="refuse"), request_line("s", content="slow")]
        batch = await user.submit(lines)
        shown = await user.until(batch.id, lambda seen: seen.error_file_id is not None)
        assert shown.status == "in_progress"
        assert shown.output_file_id is None
        assert set(await user.results(shown.error_file_id)) == {"no"}
        gate.opened.set()
        ended = await user.end_of(batch.id)
        assert set(await user.results(ended.output_file_id)) == {"s"}


async def test_a_file_that_is_being_written_is_not_deleted() -> None:
    async with running() as (user, gate, batch):
        assert batch.output_file_id is not None
        with pytest.raises(openai.ConflictError):
            await user.client.files.delete(batch.output_file_id)
        gate.opened.set()
        await user.end_of(batch.id)
        assert (await user.client.files.delete(batch.output_file_id)).deleted


async def test_without_early_results_nothing_shows_before_the_end() -> None:
    async with running(early=False) as (user, gate, batch):
        assert (batch.status, batch.output_file_id) == ("in_progress", None)
        hidden = await user.world.store.get_batch("default", batch.id)
        assert hidden.output_file_id is not None
        assert hidden.output_bytes > 0
        client = user.client
        for call in (client.files.retrieve, client.files.content, client.files.delete):
            with pytest.raises(openai.NotFoundError):
                await call(hidden.output_file_id)
        assert [file.id async for file in client.files.list()] == [batch.input_file_id]
        assert [made.output_file_id async for made in client.batches.list()] == [None]

        gate.opened.set()
        ended = await user.end_of(batch.id)
        assert ended.output_file_id == hidden.output_file_id
        assert ids(await user.content(ended.output_file_id)) == {"quick-a", "quick-b", "slow"}
