"""What a batch does when its model server is difficult, in virtual time."""

import asyncio
from collections import Counter

import pytest

from testkit.scenarios.scenario import lines, now, scenario
from tidegate.domain.batch import Status
from tidegate.domain.errors import ConnectFailed, ReplyBroken, ReplyTooLarge, TimedOut
from tidegate.testing.deployment import Deployment, ok, request_line
from tidegate.upstreams.base import Call, Reply


@scenario
async def test_a_bad_key_pauses_and_says_so_and_costs_no_attempt(world: Deployment) -> None:
    calls = 0
    refused_until = 3_600.0

    async def answer(call: Call) -> Reply:
        nonlocal calls
        calls += 1
        if now() < refused_until:
            return Reply(status=401, headers={}, body=b'{"error":{"message":"no such key"}}')
        return ok()

    async with world.processor(answer):
        batch = await world.submit(lines(100))
        await asyncio.sleep(120.0)
        waiting = (await world.get(batch.id)).waiting_for
        assert waiting is not None
        assert "401" in waiting
        assert "api_key" in waiting
        ended = await world.end_of(batch.id)
    assert ended.counts.completed == 100
    assert ended.waiting_for is None
    # The whole crowd goes once, then one at a time with back-off up to 10 s.
    assert calls < 16 + 100 + 3_600 / 5


@scenario
async def test_a_bad_key_to_the_end_expires_the_batch(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        return Reply(status=401, headers={}, body=b"{}")

    async with world.processor(answer):
        batch = await world.end_of((await world.submit(lines(30), window_seconds=600)).id)
    assert batch.status is Status.EXPIRED
    assert (batch.counts.total, batch.counts.failed, batch.counts.expired) == (30, 30, 30)
    codes = Counter(r.error.code for r in (await world.results(batch)).values() if r.error)
    assert codes == {"batch_expired": 30}
    assert now() < 602.0


@pytest.mark.parametrize("status", [503, 502, 504, 429])
@scenario
async def test_a_model_that_is_still_loading_is_waited_for(world: Deployment, status: int) -> None:
    async def answer(call: Call) -> Reply:
        if now() < 30.0:
            return Reply(status=status, headers={}, body=b"loading")
        await asyncio.sleep(0.1)
        return ok()

    async with world.processor(answer):
        batch = await world.end_of((await world.submit(lines(300))).id)
    assert batch.counts.completed == 300
    assert now() < 80.0


@scenario
async def test_a_model_unknown_while_starting_is_waited_for_and_later_a_result(
    world: Deployment,
) -> None:
    unknown = Reply(status=404, headers={}, body=b'{"error":{"message":"no model m"}}')

    async def answer(call: Call) -> Reply:
        return unknown if now() < 60.0 else ok()

    async with world.processor(answer):
        batch = await world.end_of((await world.submit(lines(20))).id)
        assert batch.counts.completed == 20

    async def never(call: Call) -> Reply:
        return unknown

    async with world.processor(never):
        batch = await world.end_of((await world.submit(lines(20))).id, within_seconds=600)
    assert (batch.status, batch.counts.failed) == (Status.COMPLETED, 20)
    result = (await world.results(batch))["line-0"]
    assert result.response is not None
    assert result.response.status_code == 404


@scenario
async def test_a_line_that_always_fails_is_tried_five_times_and_the_others_go_on(
    world: Deployment,
) -> None:
    tries: Counter[str] = Counter()

    async def answer(call: Call) -> Reply:
        tries[call.headers["x-request-id"]] += 1
        await asyncio.sleep(0.1)
        if b"poison" in call.body:
            return Reply(status=500, headers={}, body=b'{"error":{"message":"boom"}}')
        return ok()

    async with world.processor(answer):
        batch = await world.end_of(
            (await world.submit([*lines(50), request_line("bad", content="poison")])).id
        )
    assert (batch.status, batch.counts.completed, batch.counts.failed) == (Status.COMPLETED, 50, 1)
    bad = (await world.results(batch))["bad"]
    assert bad.error is None
    assert bad.response is not None
    assert (bad.response.status_code, tries[bad.id]) == (500, 5)
    assert sum(tries.values()) == 55
    assert bytes(bad.response.body) == b'{"error":{"message":"boom"}}'


@scenario
async def test_a_server_that_dies_and_comes_back_costs_no_attempts(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        started = now()
        await asyncio.sleep(1.0)
        if started < 5.0 <= now():
            raise ReplyBroken("The connection was reset.")
        if 5.0 <= now() < 300.0:
            raise ConnectFailed("Connection refused.")
        return ok()

    async with world.processor(answer):
        batch = await world.submit(lines(200))
        await asyncio.sleep(60.0)
        assert "refused" in ((await world.get(batch.id)).waiting_for or "")
        batch = await world.end_of(batch.id)
    assert batch.counts.completed == 200


@scenario
async def test_a_reply_that_never_comes_is_the_lines_fault_while_others_are_served(
    world: Deployment,
) -> None:
    tries = 0

    async def answer(call: Call) -> Reply:
        nonlocal tries
        if b"hang" in call.body:
            tries += 1
            await asyncio.sleep(10.0)
            raise TimedOut("No reply within 10 s.", phase="total")
        await asyncio.sleep(1.0)
        return ok()

    async with world.processor(answer):
        batch = await world.end_of(
            (await world.submit([request_line("bad", content="hang"), *lines(3_000)])).id
        )
    bad = (await world.results(batch))["bad"]
    assert bad.response is None
    assert bad.error is not None
    assert (bad.error.code, tries) == ("upstream_timeout", 5)


@scenario
async def test_a_line_that_only_ever_breaks_the_connection_ends_too(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        raise ReplyBroken("The server closed the connection in mid-reply.")

    async with world.processor(answer):
        batch = await world.end_of((await world.submit(lines(1))).id, within_seconds=3_600)
    assert batch.counts.failed == 1


@pytest.mark.parametrize(
    ("reply", "code"),
    [(Reply(status=200, headers={}, body=b"<html>"), "invalid_reply"), (None, "reply_too_large")],
)
@scenario
async def test_a_reply_that_cannot_be_kept_is_the_lines_error(
    world: Deployment, reply: Reply | None, code: str
) -> None:
    async def answer(call: Call) -> Reply:
        if reply is None:
            raise ReplyTooLarge("The reply is larger than 32 MiB.")
        return reply

    async with world.processor(answer):
        batch = await world.end_of((await world.submit(lines(2))).id)
    found = (await world.results(batch))["line-1"]
    assert found.error is not None
    assert (found.error.code, found.response) == (code, None)


@pytest.mark.parametrize("status", [400, 404, 413, 422])
@scenario
async def test_other_client_errors_are_results_at_once(world: Deployment, status: int) -> None:
    calls = 0

    async def answer(call: Call) -> Reply:
        nonlocal calls
        calls += 1
        return Reply(status=status, headers={"x-request-id": "theirs"}, body=b"plain text")

    async with world.processor(answer):
        batch = await world.end_of((await world.submit(lines(3))).id)
    assert (batch.status, batch.counts.failed, calls) == (Status.COMPLETED, 3, 3)
    found = (await world.results(batch))["line-0"]
    assert found.response is not None
    assert (found.response.status_code, found.response.request_id) == (status, "theirs")
    assert b"plain text" in bytes(found.response.body)


@scenario
async def test_a_retry_after_is_obeyed(world: Deployment) -> None:
    calls: list[float] = []

    async def answer(call: Call) -> Reply:
        calls.append(now())
        if len(calls) == 1:
            return Reply(status=429, headers={"retry-after": "20"}, body=b"{}")
        return ok()

    async with world.processor(answer):
        await world.end_of((await world.submit(lines(1))).id)
    assert calls[1] - calls[0] >= 20.0
