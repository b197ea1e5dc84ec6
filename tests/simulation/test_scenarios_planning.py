"""What validation finds and how lines are ordered, in virtual time."""

import asyncio
from itertools import pairwise

import pytest

from testkit.scenarios.scenario import at_once, lines, scenario
from tidegate.domain.batch import Status
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.planning.settings import Planning, UnknownModel
from tidegate.processor.settings import Settings
from tidegate.testing.deployment import TENANT, Deployment, ok, request_line
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.memory import MemoryUpstream


@scenario
async def test_an_unserved_model_rejects_its_lines_and_the_others_run(world: Deployment) -> None:
    async with world.processor({"m": at_once}):
        batch = await world.end_of(
            (await world.submit([*lines(5), request_line("x", "unheard-of")])).id
        )
    assert (batch.counts.completed, batch.counts.failed) == (5, 1)
    found = (await world.results(batch))["x"]
    assert found.error is not None
    assert found.error.code == "model_not_found"


@scenario
async def test_an_unserved_model_can_reject_the_batch(world: Deployment) -> None:
    settings = Settings(planning=Planning(unknown_model=UnknownModel.REJECT_BATCH))
    async with world.processor({"m": at_once}, settings):
        batch = await world.end_of(
            (await world.submit([*lines(5), request_line("x", "unheard-of")])).id
        )
    assert (batch.status, batch.counts.total) == (Status.FAILED, 0)
    assert [(p.code, p.line, p.param) for p in batch.problems] == [
        ("model_not_found", 6, "body.model")
    ]


@scenario
async def test_every_bad_line_is_named_up_to_the_bound(world: Deployment) -> None:
    bad = [b"nonsense\n", b"\n", *lines(1), *lines(1), *[b"{}\n"] * 5]
    settings = Settings(planning=Planning(errors_max=4))
    async with world.processor(at_once, settings):
        batch = await world.end_of((await world.submit(bad)).id)
    assert (batch.status, batch.counts.total) == (Status.FAILED, 0)
    assert [(p.line, p.code) for p in batch.problems] == [
        (1, "invalid_json_line"),
        (4, "duplicate_custom_id"),
        (5, "missing_required_parameter"),
        (6, "missing_required_parameter"),
        (None, "too_many_errors"),
    ]
    assert "7 problems" in batch.problems[-1].message


@pytest.mark.parametrize(
    ("count", "lines_max", "code"),
    [(0, 10, "empty_file"), (10, 10, None), (11, 10, "too_many_tasks")],
)
@scenario
async def test_a_file_has_at_least_one_line_and_at_most_the_bound(
    world: Deployment, count: int, lines_max: int, code: str | None
) -> None:
    settings = Settings(planning=Planning(lines_max=lines_max))
    async with world.processor(at_once, settings):
        batch = await world.end_of((await world.submit([b"\n", *lines(count)])).id)
    assert [problem.code for problem in batch.problems] == ([code] if code else [])


@scenario
async def test_an_input_that_does_not_exist_fails_the_batch(world: Deployment) -> None:
    batch = await world.create("file-nowhere")
    async with world.processor(at_once):
        ended = await world.end_of(batch.id)
    assert ended.status is Status.FAILED
    assert (ended.problems[0].code, ended.problems[0].param) == ("invalid_request", "file_id")


@scenario
async def test_deleting_the_input_does_not_disturb_the_batch(world: Deployment) -> None:
    file_id = await world.upload(b"".join(lines(5)))
    batch = await world.create(file_id)
    await world.store.delete_file(TENANT, file_id)
    async with world.processor(at_once):
        assert (await world.end_of(batch.id)).counts.completed == 5


@scenario
async def test_the_plan_puts_equal_prompts_side_by_side(world: Deployment) -> None:
    order: list[bytes] = []

    async def answer(call: Call) -> Reply:
        order.append(call.body)
        return ok()

    one = AimdSettings(start=1, min=1, max=1)
    routes = Routes(default=Endpoint("upstream", MemoryUpstream(answer), limits=one))
    mixed = [request_line(f"{n}", content=f"prompt {n % 7}") for n in range(70)]
    async with world.processor(routes):
        await world.end_of((await world.submit(mixed)).id)
    changes = sum(a != b for a, b in pairwise(order))
    assert (len(order), changes) == (70, 6)


@pytest.mark.parametrize(
    ("listed", "code"),
    [
        (b'{"data":[{"id":"m"}]}', "model_not_found"),
        (b'{"data":[{"id":"m"},{"id":"unheard-of"}]}', None),
        (b'{"data":[]}', None),
        (b"what?", None),
    ],
)
@scenario
async def test_a_gateway_that_lists_its_models_is_believed(
    world: Deployment, listed: bytes, code: str | None
) -> None:
    async def answer(call: Call) -> Reply:
        if call.path == "/v1/models":
            return Reply(status=200, headers={}, body=listed)
        return await at_once(call)

    settings = Settings(planning=Planning(unknown_model=UnknownModel.REJECT_BATCH))
    async with world.processor(answer, settings):
        batch = await world.end_of(
            (await world.submit([*lines(5), request_line("x", "unheard-of")])).id
        )
    assert [problem.code for problem in batch.problems] == ([code] if code else [])


@scenario
async def test_a_batch_whose_plan_is_gone_says_so(world: Deployment) -> None:
    async def answer(call: Call) -> Reply:
        await asyncio.sleep(10.0)
        return ok()

    settings = Settings(planning=Planning(shard_lines_max=16))
    async with world.processor(answer, settings) as processor:
        batch = await world.submit(lines(400))
        await asyncio.sleep(5.0)
        planned = await world.get(batch.id)
        assert planned.plan_blob is not None
        await world.blobs.delete(planned.plan_blob)
        await asyncio.sleep(60.0)
        assert "plan" in ((await world.get(batch.id)).waiting_for or "")
        processor.abort()
