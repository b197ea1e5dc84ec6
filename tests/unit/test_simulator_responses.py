"""`/v1/responses` repeats what was asked, and its streams and its whole replies say the same."""

import json
from collections.abc import AsyncIterator

import pytest

from testkit.servers.simulated import Simulated, simulated
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.requests.checks import TEMPERATURE_MAX
from tidegate.simulator.settings import SimulatorSettings

PATH = "/v1/responses"
LENGTH = 512
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
TOOLS = [
    {"type": "function", "name": name, "parameters": PARAMETERS, "strict": True}
    for name in ("look", "see")
]
NAMED = {"type": "function", "name": "see"}


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    size = EngineSettings(max_model_len=LENGTH, kv_blocks=64)
    async with simulated(SimulatorSettings(engine=size)) as server:
        yield server


async def test_what_was_asked_is_repeated(server: Simulated) -> None:
    form = {"format": {"type": "json_schema", "name": "x", "schema": PARAMETERS}}
    body = {"input": "x", "tools": TOOLS, "tool_choice": NAMED, "text": form}
    found = (await server.post(PATH, **body)).json()
    assert {name: found[name] for name in ("tools", "tool_choice", "text")} == {
        "tools": TOOLS,
        "tool_choice": NAMED,
        "text": form,
    }
    plain = (await server.post(PATH, input="x")).json()
    assert (plain["tools"], plain["tool_choice"], plain["text"]) == ([], "none", None)
    assert (await server.post(PATH, input="x", tools=TOOLS)).json()["tool_choice"] == "auto"


async def test_tools_are_part_of_the_prompt(server: Simulated) -> None:
    counts = [
        (await server.post(PATH, input="x", **more)).json()["usage"]["input_tokens"]
        for more in ({}, {"tools": TOOLS}, {"tools": TOOLS, "tool_choice": "none"})
    ]
    assert counts[0] == counts[2] < counts[1]


@pytest.mark.parametrize("asked", [None, LENGTH * 100])
async def test_an_answer_is_cut_at_the_models_length(server: Simulated, asked: int | None) -> None:
    reply = await server.post(PATH, input="x", max_output_tokens=asked)
    assert reply.status_code == 200, reply.text
    found = reply.json()
    assert found["max_output_tokens"] == LENGTH - found["usage"]["input_tokens"]
    assert (await server.post(PATH, input="x", max_output_tokens=0)).status_code == 400
    longer = await server.post(PATH, input="x " * LENGTH)
    assert longer.status_code == 400
    assert "exceeds this limit even without any output" in longer.json()["error"]["message"]


async def test_a_stream_of_calls_says_what_the_whole_reply_says(server: Simulated) -> None:
    body = {"input": "hello", "tools": TOOLS, "tool_choice": "required"}
    whole = (await server.post(PATH, **body)).json()["output"]
    text = (await server.post(PATH, **body, stream=True)).text
    events = [json.loads(row[6:]) for row in text.splitlines() if row.startswith("data: ")]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    said: dict[str, str] = {}
    for event in events:
        if event["type"] == "response.function_call_arguments.delta":
            said[event["item_id"]] = said.get(event["item_id"], "") + event["delta"]
    last = events[-1]["response"]["output"]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    names = [(call["name"], call["arguments"]) for call in whole]
    for calls in (last, done):
        assert [(call["name"], call["arguments"]) for call in calls] == names
        for call in calls:
            assert call["id"].startswith("fc_")
            assert call["call_id"] != call["id"]
            assert said[call["id"]] == call["arguments"]


async def test_one_call_at_a_time_if_that_is_asked(server: Simulated) -> None:
    lengths = set()
    for place in range(12):
        body = {"input": f"hello {place}", "tools": TOOLS, "tool_choice": "required"}
        single = (await server.post(PATH, **body, parallel_tool_calls=False)).json()
        assert len(single["output"]) == 1
        lengths.add(len((await server.post(PATH, **body)).json()["output"]))
    assert lengths == {1, 2}


@pytest.mark.parametrize(
    "body",
    [
        {"tool_choice": "required"},
        {"tool_choice": NAMED},
        {"tools": TOOLS, "tool_choice": {"type": "function", "name": "other"}},
        {"tools": TOOLS, "tool_choice": {"type": "function"}},
        {"tools": TOOLS, "tool_choice": "maybe"},
        {"temperature": TEMPERATURE_MAX + 0.1},
        {"temperature": -0.1},
        {"cache_salt": "a/b"},
        {"text": {"format": {"type": "json_schema", "schema": {"type": "colour"}}}},
    ],
)
async def test_what_makes_no_sense_is_refused(server: Simulated, body: dict[str, object]) -> None:
    reply = await server.post(PATH, input="x", **body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["type"] == "BadRequestError"


async def test_the_highest_temperature_is_taken(server: Simulated) -> None:
    assert (await server.post(PATH, input="x", temperature=TEMPERATURE_MAX)).status_code == 200
