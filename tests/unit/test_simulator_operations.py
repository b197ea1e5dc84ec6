"""Adapters and sleep: what operators do to a server while it runs."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from testkit.servers.simulated import Simulated, simulated
from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.engine.cost import Cost
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.server.models import ADAPTERS_MAX, AdapterFlag, adapter_from
from tidegate.simulator.settings import SimulatorSettings

STEP = Cost.of_seconds(fixed=0.002, prefill_token=0.0, decode_seq=0.0, context_token=0.0)
SETTINGS = SimulatorSettings(
    models=("base",),
    cost=STEP,
    engine=EngineSettings(max_num_seqs=4, max_model_len=8_192, kv_blocks=1_024),
    adapters=(AdapterFlag("poet", "s3://poet"),),
    sleep_mode=True,
)
COMPLETION, CHAT = "/v1/completions", "/v1/chat/completions"
LOAD, UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
LONG = {"prompt": "x", "max_tokens": 8_000, "ignore_eos": True}


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    async with simulated(SETTINGS) as server:
        yield server


# Adapters


async def test_adapters_come_and_go(server: Simulated) -> None:
    reply = await server.post(LOAD, lora_name="clerk", lora_path="/clerk")
    assert reply.status_code == 200
    assert reply.text == "Success: LoRA adapter 'clerk' added successfully."
    cards = (await server.client.get("/v1/models")).json()["data"]
    assert [(card["id"], card["root"], card["parent"]) for card in cards] == [
        ("base", "base", None),
        ("poet", "s3://poet", "base"),
        ("clerk", "/clerk", "base"),
    ]
    said = {}
    for model in ("base", "poet", "clerk"):
        answer = (await server.post(COMPLETION, prompt=[1] * 64, model=model, max_tokens=2)).json()
        assert answer["model"] == model
        said[model] = answer["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert said == {"base": 0, "poet": 0, "clerk": 0}, "adapters shared what they can't"
    reply = await server.post(UNLOAD, lora_name="clerk")
    assert reply.text == "Success: LoRA adapter 'clerk' removed successfully."
    assert (await server.post(COMPLETION, prompt="x", model="clerk")).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "status", "kind", "words"),
    [
        (LOAD, {"lora_name": "", "lora_path": "x"}, 400, "InvalidUserInput", "must be provided"),
        (LOAD, {"lora_name": "base", "lora_path": "x"}, 400, "InvalidUserInput", "conflicts"),
        (LOAD, {"lora_name": "poet", "lora_path": "x"}, 400, "InvalidUserInput", "already been"),
        (LOAD, {"lora_name": "new"}, 400, "Bad Request", "lora_path"),
        (UNLOAD, {"lora_name": ""}, 400, "InvalidUserInput", "needs to be provided"),
        (UNLOAD, {"lora_name": "absent"}, 404, "NotFoundError", "cannot be found"),
        (UNLOAD, {}, 400, "Bad Request", "lora_name"),
    ],
    ids=["nameless", "base", "twice", "pathless", "nothing", "absent", "empty"],
)
async def test_adapters_that_make_no_sense_are_refused(
    server: Simulated, path: str, body: dict[str, object], status: int, kind: str, words: str
) -> None:
    reply = await server.post(path, **body)
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["type"]) == (status, status, kind)
    assert words in error["message"]


async def test_an_adapter_can_be_loaded_in_place(server: Simulated) -> None:
    body = {"lora_name": "poet", "lora_path": "/new", "load_inplace": True}
    assert (await server.post(LOAD, **body)).status_code == 200
    assert server.simulator.models.number("poet") == 1


async def test_adapters_are_bounded() -> None:
    many = tuple(AdapterFlag(f"a{number}", "x") for number in range(ADAPTERS_MAX))
    async with simulated(replace(SETTINGS, adapters=many)) as server:
        reply = await server.post(LOAD, lora_name="one-more", lora_path="x")
        assert reply.status_code == 400
        body = {"lora_name": "a0", "lora_path": "y", "load_inplace": True}
        assert (await server.post(LOAD, **body)).status_code == 200
    with pytest.raises(SettingsInvalid, match="adapters at most"):
        replace(SETTINGS, adapters=(*many, AdapterFlag("one-more", "x")))


async def test_a_bounded_number_of_adapters_runs_at_a_time(server: Simulated) -> None:
    await server.post(LOAD, lora_name="clerk", lora_path="/clerk")
    engine = server.simulator.driver.engine
    async with asyncio.TaskGroup() as group:
        first = group.create_task(server.post(COMPLETION, **LONG, model="poet"))
        await server.until(lambda: engine.running == 1)
        second = group.create_task(server.post(COMPLETION, **LONG, model="clerk"))
        third = group.create_task(server.post(COMPLETION, prompt="y", model="base", max_tokens=1))
        await third
        assert engine.loras() == (["poet"], ["clerk"])
        text = (await server.client.get("/metrics")).text
        row = 'max_lora="1",running_lora_adapters="poet",waiting_lora_adapters="clerk"'
        assert f"vllm:lora_requests_info{{{row}}} " in text
        for task in (first, second):
            task.cancel()
    await server.until_idle()


async def test_without_adapters_there_is_no_way_to_load_one() -> None:
    async with simulated() as server:
        assert (await server.post(LOAD, lora_name="x", lora_path="y")).status_code == 404
        assert "lora_requests_info" not in (await server.client.get("/metrics")).text


def test_an_adapter_is_given_in_two_ways() -> None:
    assert adapter_from("poet=/models/poet=2") == AdapterFlag("poet", "/models/poet=2")
    told = '{"name": "poet", "path": "/p", "base_model_name": "base"}'
    assert adapter_from(told) == AdapterFlag("poet", "/p", "base")
    for text in ("poet", "=x", "poet=", "{}", '{"name": ""}', '{"name":"","path":"x"}'):
        with pytest.raises(SettingsInvalid, match="--lora-modules"):
            adapter_from(text)
    for names in (("poet", "poet"), ("base",)):
        with pytest.raises(SettingsInvalid, match="names of their own"):
            replace(SETTINGS, adapters=tuple(AdapterFlag(name, "x") for name in names))


# Sleep


async def state_of(server: Simulated) -> dict[str, float]:
    names = ("awake", "weights_offloaded", "discard_all")
    sample = 'vllm:engine_sleep_state{engine="0",model_name="base",sleep_state="%s"}'
    return {name: await server.metric(sample % name) for name in names}


@pytest.mark.parametrize(
    ("level", "states"), [(0, (0, 0, 0)), (1, (0, 1, 0)), (2, (0, 0, 1))], ids=["0", "1", "2"]
)
async def test_a_sleeping_server_holds_requests_until_it_is_awake(
    server: Simulated, level: int, states: tuple[int, ...]
) -> None:
    await server.post(COMPLETION, prompt=[7] * 64, max_tokens=1)
    pool = server.simulator.driver.engine.pool
    known = pool.known
    assert known
    reply = await server.post(f"/sleep?level={level}")
    assert reply.json() == {"status": "sleeping", "level": level}
    assert (await server.client.get("/is_sleeping")).json() == {"is_sleeping": True}
    assert tuple((await state_of(server)).values()) == states
    assert pool.known == (0 if level else known)
    assert (await server.client.get("/health")).status_code == 200
    async with asyncio.TaskGroup() as group:
        held = group.create_task(server.post(COMPLETION, prompt="x", max_tokens=3))
        await server.until(lambda: server.simulator.driver.engine.waiting == 1)
        assert not held.done()
        assert (await server.post("/wake_up")).json() == {"status": "awake", "tags": None}
        assert (await held).status_code == 200
    assert (await server.client.get("/is_sleeping")).json() == {"is_sleeping": False}
    assert tuple((await state_of(server)).values()) == (1, 0, 0)


async def test_falling_asleep_ends_what_runs_with_what_it_has(server: Simulated) -> None:
    engine = server.simulator.driver.engine
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(server.post(path, **body, model="base"))
            for path, body in (
                (COMPLETION, LONG),
                (COMPLETION, LONG | {"stream": True, "stream_options": {"include_usage": True}}),
                (CHAT, {"messages": [{"role": "user", "content": "x"}], **LONG}),
            )
        ]
        await server.until(lambda: engine.running == 3)
        await server.until(lambda: engine.counts.generated_tokens > 30)
        await server.post("/sleep")
    whole, stream, chat = [task.result() for task in tasks]
    for answer in (whole.json(), chat.json()):
        assert answer["choices"][0]["finish_reason"] == "abort"
        assert 0 < answer["usage"]["completion_tokens"] < 8_000
    words = len(whole.json()["choices"][0]["text"].split())
    assert words == whole.json()["usage"]["completion_tokens"]
    events = [json.loads(row[6:]) for row in stream.text.splitlines() if row.startswith("data: {")]
    assert events[-2]["choices"][0]["finish_reason"] == "abort"
    text = "".join(event["choices"][0]["text"] for event in events[:-1])
    assert len(text.split()) == events[-1]["usage"]["completion_tokens"]
    assert stream.text.endswith("data: [DONE]\n\n")
    assert await server.metric(f"vllm:request_success_total{{{ABORTED}}}") == 3
    assert not engine.running
    assert not engine.pool.held


ABORTED = 'engine="0",model_name="base",finished_reason="abort"'


async def test_what_waits_is_ended_before_its_first_token(server: Simulated) -> None:
    engine = server.simulator.driver.engine
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(server.post(COMPLETION, **LONG | {"stream": stream, "n": 5}))
            for stream in (False, True)
        ]
        await server.until(lambda: engine.waiting == 6)
        await server.post("/sleep")
    whole, stream = [task.result() for task in tasks]
    assert {each["finish_reason"] for each in whole.json()["choices"]} == {"abort"}
    assert stream.text.count('"finish_reason":"abort"') == 5
    await server.until_idle()


async def test_wait_lets_what_runs_come_to_its_end(server: Simulated) -> None:
    engine = server.simulator.driver.engine
    body = {"prompt": "x", "max_tokens": 100, "ignore_eos": True}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.post(COMPLETION, **body))
        await server.until(lambda: engine.running == 1)
        asleep = group.create_task(server.post("/sleep?mode=wait"))
        await server.until(lambda: server.simulator.driver.is_paused)
        held = group.create_task(server.post(COMPLETION, **body | {"prompt": "y"}))
        assert (await asleep).json()["status"] == "sleeping"
        assert (await running).json()["usage"]["completion_tokens"] == 100
        assert not held.done()
        assert engine.waiting == 1
        await server.post("/wake_up")
        assert (await held).status_code == 200


async def test_waking_ends_a_wait_for_sleep(server: Simulated) -> None:
    engine = server.simulator.driver.engine
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.post(COMPLETION, **LONG))
        await server.until(lambda: engine.running == 1)
        asleep = group.create_task(server.post("/sleep?mode=wait"))
        await server.until(lambda: server.simulator.driver.is_paused)
        assert (await server.post("/wake_up")).json()["status"] == "awake"
        assert (await asleep).json()["status"] == "awake"
        running.cancel()
    await server.until_idle()


@pytest.mark.parametrize("level", [0, 2])
async def test_keep_lets_what_runs_stand_still(server: Simulated, level: int) -> None:
    engine = server.simulator.driver.engine
    body = {"prompt": "x", "max_tokens": 400, "ignore_eos": True}
    async with asyncio.TaskGroup() as group:
        running = group.create_task(server.post(COMPLETION, **body))
        await server.until(lambda: engine.running == 1)
        await server.post(f"/sleep?level={level}&mode=keep")
        stood = engine.counts.generated_tokens
        await asyncio.sleep(0.02)  # Ten steps would fit.
        assert engine.counts.generated_tokens == stood < 400
        assert engine.running == (0 if level else 1)
        await server.post("/wake_up")
        answer = (await running).json()
    assert answer["usage"]["completion_tokens"] == 400
    assert answer["choices"][0]["finish_reason"] == "length"
    assert engine.counts.preemptions == (1 if level else 0)


async def test_waking_goes_by_tags(server: Simulated) -> None:
    await server.post("/sleep")
    reply = await server.post("/wake_up?tags=weights")
    assert reply.json() == {"status": "sleeping", "tags": ["weights"]}
    assert (await server.post("/wake_up?tags=other")).json()["status"] == "sleeping"
    assert (await state_of(server))["weights_offloaded"] == 1
    reply = await server.post("/wake_up?tags=kv_cache&tags=scheduling")
    assert reply.json()["status"] == "awake"
    assert (await state_of(server))["awake"] == 1


async def test_sleep_is_refused_where_it_makes_no_sense(server: Simulated) -> None:
    for query, param in (("level=3", "level"), ("level=x", "level"), ("mode=doze", "mode")):
        reply = await server.post(f"/sleep?{query}")
        assert reply.status_code == 400
        assert reply.json()["error"]["param"] == f"query.{param}"
    async with simulated() as wakeful:
        for method, path in (("POST", "/sleep"), ("POST", "/wake_up"), ("GET", "/is_sleeping")):
            assert (await wakeful.client.request(method, path)).status_code == 404
