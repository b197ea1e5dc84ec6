"""Cancelling with the OpenAI SDK: what came back is kept, and an end is an end."""

import asyncio

import openai
import pytest
from openai.types import Batch

from testkit.users.sdk import SdkUser, sdk_user
from tidegate.processor.settings import Claims, Drain, Settings
from tidegate.testing.deployment import ok, request_line
from tidegate.upstreams.base import Call, Reply


async def answer(call: Call) -> Reply:
    return ok()


async def answer_never(call: Call) -> Reply:
    await asyncio.Event().wait()
    return ok()


async def cancel(user: SdkUser, batch_id: str) -> Batch:
    return await user.client.batches.cancel(batch_id)


async def test_a_running_batch_keeps_what_it_has() -> None:
    """Of four lines, one has its answer, one lands after the cancel, and two never ran."""
    landing, all_asked = asyncio.Event(), asyncio.Event()
    slow = 0

    async def answer_two(call: Call) -> Reply:
        if b"quick" in call.body:
            return ok(tokens=2)
        nonlocal slow
        slow += 1
        if slow == 3:
            all_asked.set()
        await (landing if b"landing" in call.body else asyncio.Event()).wait()
        return ok(tokens=5)

    settings = Settings(claims=Claims(poll_seconds=0.02), drain=Drain(drain_seconds=2))
    async with sdk_user(answer_two, processor=settings) as user:
        words = ("quick", "landing", "never-a", "never-b")
        batch = await user.submit([request_line(word, content=word) for word in words])
        await all_asked.wait()
        await user.until(batch.id, lambda seen: seen.output_file_id is not None)
        shown = await cancel(user, batch.id)
        assert (shown.status, shown.cancelled_at) == ("cancelling", None)
        assert (await cancel(user, batch.id)).status in {"cancelling", "cancelled"}
        landing.set()
        ended = await user.end_of(batch.id)
        assert ended.status == "cancelled"
        assert shown.cancelling_at is not None
        assert ended.cancelled_at is not None
        assert ended.cancelled_at >= shown.cancelling_at
        assert ended.request_counts is not None
        assert ended.request_counts.to_dict() == {"total": 4, "completed": 2, "failed": 2}
        assert ended.usage is not None
        assert ended.usage.total_tokens == 14
        assert set(await user.results(ended.output_file_id)) == {"quick", "landing"}
        errors = await user.results(ended.error_file_id)
        assert set(errors) == {"never-a", "never-b"}
        for line in errors.values():
            assert line.response is None
            assert line.error is not None
            assert line.error.code == "batch_cancelled"


async def test_a_cancelled_batch_may_be_cancelled_again() -> None:
    settings = Settings(claims=Claims(poll_seconds=0.02), drain=Drain(drain_seconds=0))
    async with sdk_user(answer_never, processor=settings) as user:
        batch = await user.submit([request_line("a")])
        await user.until(batch.id, lambda seen: seen.status == "in_progress")
        await cancel(user, batch.id)
        ended = await user.end_of(batch.id)
        assert ended.status == "cancelled"
        assert ended.output_file_id is None
        assert await cancel(user, batch.id) == ended


async def test_an_ended_batch_is_no_longer_cancelled_and_no_retry_is_made() -> None:
    async with sdk_user(answer) as user:
        done = await user.end_of((await user.submit([request_line("a")])).id)
        broken = await user.end_of((await user.submit([b"{}\n"])).id)
        assert (done.status, broken.status) == ("completed", "failed")
        for batch in (done, broken):
            with pytest.raises(openai.ConflictError) as caught:
                await cancel(user, batch.id)
            error = caught.value
            assert error.body == {
                "message": f"Cannot cancel a batch with status '{batch.status}'.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
            assert error.response.headers["x-should-retry"] == "false"
            assert user.world.asked.count(f"POST /v1/batches/{batch.id}/cancel") == 1
            assert await user.client.batches.retrieve(batch.id) == batch


async def test_a_batch_that_was_not_yet_planned_is_cancelled() -> None:
    settings = Settings(claims=Claims(poll_seconds=0.02), drain=Drain(drain_seconds=0))
    async with sdk_user(answer_never, processor=settings) as user:
        batch = await user.submit([request_line("a")])
        shown = await cancel(user, batch.id)
        assert shown.status == "cancelling"
        ended = await user.end_of(batch.id)
        assert ended.status == "cancelled"


async def test_an_unknown_batch_is_not_cancelled() -> None:
    async with sdk_user(answer) as user:
        with pytest.raises(openai.NotFoundError, match="No batch found with id 'batch_nowhere'"):
            await cancel(user, "batch_nowhere")
