"""Byte for byte: from the uploaded line to the model server, and from its reply to the output.

The whole way is real: the OpenAI SDK, our API, the processor, our HTTP client, and a server that
remembers what it was sent.
"""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from testkit.servers.handler import HandlerServer
from testkit.users.sdk import SdkUser, sdk_user
from tidegate.domain.retry import Retry
from tidegate.endpoints.endpoint import Endpoint, Routes
from tidegate.processor.settings import Claims, Settings
from tidegate.upstreams.base import Call, Reply
from tidegate.upstreams.http1.upstream import HttpUpstream
from tidegate.upstreams.settings import HttpSettings

# Each would change in the hands of a JSON library: blanks, order, numbers, escapes, repeated keys.
BODIES = {
    "blanks": b'{ "model" :"m",  "messages":[ {"role":"user","content":"a  b"}\t] , "n": 1 }',
    "order": rb'{"z":1,"messages":[],"y":2,"model":"m","a":3}',
    "huge float": rb'{"model":"m","messages":[],"x":1e400,"y":-1E+400,"z":1e-400}',
    "huge integer": rb'{"model":"m","messages":[],"n":1180591620717411303424}',
    "huge negative": rb'{"model":"m","messages":[],"n":-9223372036854775809}',
    "digits": rb'{"model":"m","messages":[],"x":1.10,"z":-0.0,"w":1E2,"v":0.30000000000000004}',
    "escapes": rb'{"model":"m","messages":["\u00e9\/\ud83c\udf0a\u2028\"\\\u0000"]}',
    "raw letters": '{"model":"m","messages":[{"content":"é 🌊 \u2028 \x7f"}]}'.encode(),
    "escaped keys": rb'{"\u006dodel":"m","m\u0065ssages":[]}',
    "repeated keys": rb'{"model":"m","messages":[],"seed":1,"seed":2}',
    "nested": b'{"model":"m","messages":[],"x":' + b"[" * 500 + b"]" * 500 + b"}",
}
REPLIES = {
    "blanks": rb'{ "id" : "x" ,"usage":{"prompt_tokens":2, "completion_tokens":3} , "a":[ ] }',
    "numbers": rb'{"z":1e400,"y":1180591620717411303424,"x":1.10,"w":-0.0}',
    "escapes": rb'{"content":"\u00e9\/\ud83c\udf0a\u2028\"\\"}',
    "half a pair": rb'{"content":"\ud83c"}',
    "raw letters": '{"content":"é 🌊 \u2028"}'.encode(),
    "repeated keys": rb'{"a":1,"a":2}',
    "an array": rb"[1, 2]",
    "a text": rb'"hello"',
}


@asynccontextmanager
async def user_of(
    answer: Callable[[Call], bytes], settings: Settings | None = None
) -> AsyncIterator[tuple[SdkUser, list[Call]]]:
    seen: list[Call] = []

    async def handle(call: Call) -> Reply:
        seen.append(call)
        return Reply(status=200, headers={"content-type": "application/json"}, body=answer(call))

    async with HandlerServer(handle) as server:
        upstream = HttpUpstream(HttpSettings(url=server.url, api_key="upstream-key"))
        routes = Routes(default=Endpoint("upstream", upstream))
        try:
            async with sdk_user(routes, processor=settings) as user:
                yield user, seen
        finally:
            await upstream.aclose()


def a_line(custom_id: bytes, body: bytes) -> bytes:
    """Write a line by hand: nothing else would keep the bytes."""
    return b"".join(
        (
            b'{"body":',
            body,
            b' , "method": "POST","custom_id":',
            custom_id,
            b',"url":"\\/v1/chat/completions"}',
        )
    )


async def test_bodies_reach_the_model_server_as_they_were_written() -> None:
    async with user_of(lambda call: b"{}") as (user, seen):
        lines = [a_line(json.dumps(name).encode(), body) for name, body in BODIES.items()]
        batch = await user.end_of((await user.submit([b"\r\n".join(lines)])).id)
        assert (batch.status, batch.errors) == ("completed", None)
        assert sorted(call.body for call in seen) == sorted(BODIES.values())
        for call in seen:
            assert (call.method, call.path) == ("POST", "/v1/chat/completions")
            headers = {name.lower(): value for name, value in call.headers.items()}
            assert headers["content-type"] == "application/json"
            assert headers["content-length"] == str(len(call.body))
            # The key of the model server goes along, the user's own stays here.
            assert headers["authorization"] == "Bearer upstream-key"


async def test_an_upload_is_kept_as_it_was_sent() -> None:
    async with user_of(lambda call: b"{}") as (user, _):
        lines = [a_line(json.dumps(name).encode(), body) for name, body in BODIES.items()]
        data = b"\xef\xbb\xbf" + b"\r\n \n".join(lines)
        assert await user.content(await user.upload(data)) == data


async def test_replies_reach_the_output_as_they_were_sent() -> None:
    def answer(call: Call) -> bytes:
        return REPLIES[json.loads(call.body)["name"]]

    async with user_of(answer) as (user, _):
        lines = [
            a_line(
                json.dumps(name).encode(),
                json.dumps({"model": "m", "messages": [], "name": name}).encode(),
            )
            for name in REPLIES
        ]
        batch = await user.end_of((await user.submit([b"\n".join(lines)])).id)
        assert batch.request_counts is not None
        assert batch.request_counts.completed == len(REPLIES)
        assert batch.usage is not None
        assert (batch.usage.input_tokens, batch.usage.output_tokens) == (2, 3)
        content = await user.content(batch.output_file_id or "")
        for name, reply in REPLIES.items():
            start = b',"custom_id":' + json.dumps(name).encode() + b',"response":{'
            found = [line for line in content.split(b"\n") if start in line]
            assert len(found) == 1, name
            assert found[0].endswith(b'"body":' + reply + b'},"error":null}'), name


async def test_a_reply_on_several_lines_becomes_one_line() -> None:
    reply = b'{\n  "a": "b\\nc",\r\n  "d": 1e400\n}\n'
    async with user_of(lambda call: reply) as (user, _):
        batch = await user.end_of((await user.submit([a_line(b'"a"', BODIES["order"])])).id)
        content = await user.content(batch.output_file_id or "")
    assert content.count(b"\n") == 1
    assert content.endswith(b'"body":{  "a": "b\\nc",  "d": 1e400}},"error":null}\n')


@pytest.mark.parametrize(
    "custom_id", [rb'"\u0061\/\u00e9"', '"é 🌊"'.encode(), rb'"\"quoted\\"', rb'" "']
)
async def test_a_custom_id_comes_back_as_it_was_written(custom_id: bytes) -> None:
    async with user_of(lambda call: b"{}") as (user, _):
        batch = await user.end_of((await user.submit([a_line(custom_id, BODIES["order"])])).id)
        content = await user.content(batch.output_file_id or "")
    assert b'"custom_id":' + custom_id + b"," in content
    assert json.loads(content)["custom_id"] == json.loads(custom_id)


async def test_a_reply_that_is_no_json_is_an_error_of_its_line() -> None:
    retry = Retry(attempts_max=2, unsure_max=2, delay_seconds_min=0.01, delay_seconds_max=0.02)
    settings = Settings(claims=Claims(poll_seconds=0.02), retry=retry)
    async with user_of(lambda call: b"<html>\xff", settings) as (user, seen):
        batch = await user.end_of((await user.submit([a_line(b'"a"', BODIES["order"])])).id)
        assert len(seen) == 2
        assert batch.output_file_id is None
        line = (await user.results(batch.error_file_id))["a"]
        assert line.response is None
        assert line.error is not None
        assert line.error.code == "invalid_reply"
