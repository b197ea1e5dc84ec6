"""Answers that a request constrains keep the rule; constraints that make no sense are refused."""

import json
import re
from collections.abc import AsyncIterator

import jsonschema_rs
import pytest

from testkit.servers.simulated import Simulated, simulated
from tidegate.simulator.answers.plans import Limits
from tidegate.simulator.structured.constraints import regex_shape
from tidegate.simulator.structured.variants import VARIANTS_MAX, WORK_MAX, varied

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
RESPONSE = "/v1/responses"
MESSAGES = [{"role": "user", "content": "Say something."}]
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
NAMED = {"type": "function", "function": {"name": "look"}}
SCHEMA: dict[str, object] = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "^[A-F]{3}$"}},
    "required": ["a"],
    "additionalProperties": False,
}


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    async with simulated() as server:
        yield server


@pytest.mark.parametrize(
    ("asked", "pattern"),
    [
        ({"regex": r"\d{3}-[a-f]+"}, r"\d{3}-[a-f]+"),
        ({"regex": ""}, ""),
        ({"choice": ["ja", "nein"]}, "ja|nein"),
        ({"json": SCHEMA}, r'{"a":"[A-F]{3}"}'),
        ({"json": json.dumps(SCHEMA)}, r'{"a":"[A-F]{3}"}'),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_constrained_text_keeps_the_rule(
    server: Simulated, asked: dict[str, object], pattern: str
) -> None:
    body = {"structured_outputs": asked, "max_tokens": 500, "n": 4}
    chat = (await server.post(CHAT, messages=MESSAGES, **body)).json()
    text = (await server.post(COMPLETION, prompt="x", **body)).json()
    del body["n"], body["max_tokens"]
    response = (await server.post(RESPONSE, input="x", **body)).json()
    said = [choice["message"]["content"] for choice in chat["choices"]]
    said += [choice["text"] for choice in text["choices"]]
    said.append(response["output"][0]["content"][0]["text"])
    for each in said:
        assert re.fullmatch(pattern, each), each
    assert {choice["finish_reason"] for choice in chat["choices"]} == {"stop"}


async def test_a_stream_says_the_same(server: Simulated) -> None:
    body = {"prompt": "x", "structured_outputs": {"regex": "[a-z]{40}"}, "max_tokens": 90}
    whole = (await server.post(COMPLETION, **body)).json()["choices"][0]["text"]
    stream = (await server.post(COMPLETION, **body, stream=True)).text
    rows = [row[6:] for row in stream.splitlines() if row.startswith("data: {")]
    assert "".join(json.loads(row)["choices"][0]["text"] for row in rows) == whole
    assert len(whole) == 40


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"regex": "(?=a)"}, "Failed to transform regex"),
        ({"regex": "a\0"}, "NUL"),
        ({"regex": "a", "choice": ["b"]}, "only use one kind"),
        ({"regex": "a", "json_object": True}, "multiple are specified"),
        ({"regex": None}, "none are specified"),
        ({"grammar": "root ::= [0-9]"}, "does not support structured_outputs.grammar"),
        ({"choice": []}, "empty list"),
        ({"json_object": False}, "must be True"),
        ({"json": {"type": "string", "pattern": "("}}, "JSON schema"),
        ({"structural_tag": "{}"}, "does not support structured_outputs.structural_tag"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_what_makes_no_sense_is_refused(
    server: Simulated, asked: dict[str, object], why: str
) -> None:
    reply = await server.post(CHAT, messages=MESSAGES, structured_outputs=asked)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert why in error["message"]
    assert error["type"] == "BadRequestError"


async def test_a_constrained_text_is_no_call_unless_one_is_forced(server: Simulated) -> None:
    body = {"messages": MESSAGES, "tools": [TOOL], "max_tokens": 200, "n": 8}
    body["response_format"] = {"type": "json_schema", "json_schema": {"schema": SCHEMA}}
    for choice in (await server.post(CHAT, **body)).json()["choices"]:
        jsonschema_rs.validate(SCHEMA, json.loads(choice["message"]["content"]))
    forced = (await server.post(CHAT, **body, tool_choice="required")).json()["choices"]
    assert all(choice["message"]["tool_calls"] for choice in forced)
    reply = await server.post(
        CHAT, messages=MESSAGES, tools=[TOOL], tool_choice=NAMED, structured_outputs={"regex": "a"}
    )
    assert reply.status_code == 400
    assert "not both" in reply.json()["error"]["message"]


async def test_both_ways_to_say_it_are_one_too_many(server: Simulated) -> None:
    asked = {"structured_outputs": {"regex": "a"}}
    form = {"response_format": {"type": "json_object"}}
    reply = await server.post(COMPLETION, prompt="x", **asked, **form)
    assert reply.status_code == 400
    reply = await server.post(
        RESPONSE, input="x", **asked, text={"format": {"type": "json_object"}}
    )
    assert reply.status_code == 400


def test_a_bounded_number_of_texts_of_a_request_differ() -> None:
    plain = varied(lambda number: (number, 1))
    assert len({plain(number) for number in range(1_000)}) == VARIANTS_MAX
    costly = varied(lambda number: (number, WORK_MAX // 2))
    assert len({costly(number) for number in range(1_000)}) == 2
    assert {costly(number) for number in range(10)} == {0, 1}


async def test_thousands_of_constrained_choices_are_made_in_time(server: Simulated) -> None:
    """What one of them costs at most, each of thousands would: a minute for one request."""
    body = {"prompt": "x", "n": 4_000, "max_tokens": 1}
    body["structured_outputs"] = {"regex": "([ab]{4000}|[cd]{4000})"}
    reply = await server.post(COMPLETION, **body)
    assert reply.status_code == 200
    assert len(reply.json()["choices"]) == 4_000


def test_an_answer_is_cut_where_the_request_says() -> None:
    plan = regex_shape("a b c ")(1, Limits(tokens_max=2))
    assert (plan.finish, plan.total) == ("length", 2)
