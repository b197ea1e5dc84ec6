"""What the simulated server makes of a request: limits, stops, lengths, refusals, determinism."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx
import pytest

from testkit.servers.simulated import Simulated, simulated
from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.answers.response_builder import DIMENSIONS_MAX, REQUEST_ID_CHARACTERS_MAX
from tidegate.simulator.engine.presets import preset
from tidegate.simulator.engine.settings import EngineSettings, Policy
from tidegate.simulator.requests.checks import (
    CHOICES_MAX,
    LOGPROBS_MAX,
    SALT_CHARACTERS_MAX,
    STOPS_MAX,
)
from tidegate.simulator.server.app import CREATED
from tidegate.simulator.settings import USUAL_TOKENS_MAX, SimulatorSettings

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
MESSAGES = [{"role": "user", "content": "Say something."}]
SMALL = SimulatorSettings(
    models=("sim", "other"), engine=EngineSettings(max_model_len=256, kv_blocks=512)
)


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    async with simulated(SMALL) as server:
        yield server


def text_of(reply: httpx.Response) -> str:
    assert reply.status_code == 200, reply.text
    return str(reply.json()["choices"][0]["message"]["content"])


async def test_the_same_request_gets_the_same_bytes_from_two_servers() -> None:
    answers = []
    for seed in (1, 1, 2):
        async with simulated(replace(SMALL, seed=seed)) as server:
            bodies = [
                {"messages": MESSAGES, "n": 2, "logprobs": True, "top_logprobs": 2},
                {"messages": MESSAGES, "stream": True},
            ]
            replies = [await server.post(CHAT, **body) for body in bodies]
            replies.append(await server.post("/v1/responses", input="x", stream=True))
            answers.append([reply.content for reply in replies])
            assert json.loads(answers[-1][0])["created"] == CREATED
    assert answers[0] == answers[1]
    assert answers[0][0] != answers[2][0]


async def test_a_seed_of_the_request_changes_the_answer(server: Simulated) -> None:
    said = [text_of(await server.post(CHAT, messages=MESSAGES, seed=seed)) for seed in (1, 1, 2)]
    assert said[0] == said[1] != said[2]
    plain = text_of(await server.post(CHAT, messages=MESSAGES))
    assert plain not in said


async def test_a_clock_gives_the_time_of_an_answer() -> None:
    class Noon:
        def now(self) -> float:
            return 43_200.9

    async with simulated(SMALL, wall=Noon()) as server:
        reply = await server.post(COMPLETION, prompt="x")
    assert reply.json()["created"] == 43_200


async def test_lengths_follow_the_law_and_the_bounds(server: Simulated) -> None:
    lengths = []
    for number in range(60):
        reply = (
            await server.post(CHAT, messages=[{"role": "user", "content": f"{number}"}])
        ).json()
        count = reply["usage"]["completion_tokens"]
        assert len(reply["choices"][0]["message"]["content"].split()) == count
        lengths.append(count)
    assert 8 <= sorted(lengths)[30] <= 32  # The median is 16.
    assert len(set(lengths)) > 10
    for asked in (1, 7, 200):
        reply = (
            await server.post(CHAT, messages=MESSAGES, max_tokens=asked, ignore_eos=True)
        ).json()
        assert reply["usage"]["completion_tokens"] == asked
        assert reply["choices"][0]["finish_reason"] == "length"
    reply = (await server.post(CHAT, messages=MESSAGES, min_tokens=150, max_tokens=200)).json()
    assert 150 <= reply["usage"]["completion_tokens"] <= 200


async def test_a_completion_has_sixteen_tokens_at_most_unless_it_says_so(server: Simulated) -> None:
    reply = (await server.post(COMPLETION, prompt="x", ignore_eos=True)).json()
    assert reply["usage"]["completion_tokens"] == 16


async def test_max_completion_tokens_wins(server: Simulated) -> None:
    body = {"messages": MESSAGES, "max_tokens": 9, "max_completion_tokens": 3, "ignore_eos": True}
    reply = (await server.post(CHAT, **body)).json()
    assert reply["usage"]["completion_tokens"] == 3


async def test_a_stop_ends_the_text_before_it(server: Simulated) -> None:
    whole = text_of(await server.post(CHAT, messages=MESSAGES, max_tokens=12, ignore_eos=True))
    words = whole.split()
    middle = f"{words[5][3:]} {words[6][:2]}"  # Across two tokens.
    body: dict[str, object] = {"messages": MESSAGES, "max_tokens": 12, "ignore_eos": True}
    for stop in (middle, [middle, "never"]):
        for stream in (False, True):
            reply = await server.post(CHAT, **body, stop=stop, stream=stream)
            text, choice = (
                said_by(reply) if stream else (text_of(reply), reply.json()["choices"][0])
            )
            assert text == whole[: whole.index(middle)]
            assert choice["finish_reason"] == "stop"
            assert choice["stop_reason"] == middle
    kept = await server.post(CHAT, **body, stop=middle, include_stop_str_in_output=True)
    assert text_of(kept) == whole[: whole.index(middle) + len(middle)]
    assert kept.json()["usage"]["completion_tokens"] == 7
    later = await server.post(CHAT, **body, stop=middle, min_tokens=8)
    assert text_of(later) == whole


def said_by(reply: httpx.Response) -> tuple[str, dict[str, object]]:
    """Return the text of a streamed chat, and its last choice."""
    events = [row[6:] for row in reply.text.splitlines() if row.startswith("data: {")]
    choices = [json.loads(event)["choices"][0] for event in events]
    return "".join(choice["delta"].get("content", "") for choice in choices), choices[-1]


async def test_a_stop_token_ends_it(server: Simulated) -> None:
    body: dict[str, object] = {"messages": MESSAGES, "max_tokens": 12, "ignore_eos": True}
    whole = text_of(await server.post(CHAT, **body))
    tokens = (await server.post("/tokenize", prompt=whole)).json()["tokens"]
    reply = await server.post(CHAT, **body, stop_token_ids=[tokens[4]])
    assert text_of(reply).split() == whole.split()[:4]
    assert reply.json()["choices"][0]["stop_reason"] == tokens[4]


async def test_tokens_go_to_text_and_back(server: Simulated) -> None:
    said = text_of(await server.post(CHAT, messages=MESSAGES))
    found = (await server.post("/tokenize", prompt=said, return_token_strs=True)).json()
    assert found["count"] == len(found["tokens"]) == len(said.split())
    assert "".join(found["token_strs"]) == said
    assert found["max_model_len"] == 256
    back = (await server.post("/detokenize", tokens=found["tokens"])).json()
    assert back["prompt"] == said
    chat = (await server.post("/tokenize", messages=MESSAGES)).json()
    usage = (await server.post(CHAT, messages=MESSAGES)).json()["usage"]
    assert chat["count"] == usage["prompt_tokens"]


async def test_a_prefix_that_was_seen_is_cached(server: Simulated) -> None:
    long = [{"role": "user", "content": "tide " * 100}]
    first = (await server.post(CHAT, messages=long)).json()["usage"]
    again = (await server.post(CHAT, messages=long)).json()["usage"]
    salted = (await server.post(CHAT, messages=long, cache_salt="mine")).json()["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    cached = again["prompt_tokens_details"]["cached_tokens"]
    assert cached == (again["prompt_tokens"] - 1) // 16 * 16
    assert salted["prompt_tokens_details"]["cached_tokens"] == 0


async def test_an_answer_sent_back_is_a_prefix(server: Simulated) -> None:
    body: dict[str, object] = {"max_tokens": 60, "ignore_eos": True}
    said = text_of(await server.post(CHAT, messages=MESSAGES, **body))
    answer = {"role": "assistant", "content": said}
    following = [*MESSAGES, answer, {"role": "user", "content": "Go on."}]
    usage = (await server.post(CHAT, messages=following)).json()["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] >= 48


async def test_prefill_elsewhere(server: Simulated) -> None:
    asked = {"do_remote_decode": True, "do_remote_prefill": False}
    reply = await server.post(CHAT, messages=MESSAGES, max_tokens=1, kv_transfer_params=asked)
    found = reply.json()["kv_transfer_params"]
    assert found["do_remote_prefill"] is True
    assert found["remote_block_ids"]
    reply = await server.post(CHAT, messages=MESSAGES, kv_transfer_params=found)
    assert reply.status_code == 200
    external = 'vllm:prompt_tokens_by_source_total{engine="0",model_name="sim",source="external'
    assert await server.metric(external) > 0


async def test_keys_and_values_take_their_time_to_come() -> None:
    # Slow enough to show in the engine's own time, which is exact.
    settings = replace(SMALL, transfer_seconds=0.02, transfer_token_seconds=0.001)
    async with simulated(settings) as server:
        prompt = list(range(30))
        await server.post(
            COMPLETION, prompt=prompt, max_tokens=1, kv_transfer_params={"do_remote_prefill": True}
        )
        seconds = await server.metric("vllm:time_to_first_token_seconds_sum")
    assert 0.05 <= seconds < 0.0505


BAD: list[tuple[str, dict[str, object], str | None]] = [
    (CHAT, {}, "body.messages"),
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": "x"}, "body.messages"),
    (CHAT, {"messages": [{"content": "x"}]}, "body.messages"),
    (CHAT, {"messages": MESSAGES, "n": 0}, None),
    (CHAT, {"messages": MESSAGES, "n": CHOICES_MAX + 1}, None),
    (CHAT, {"messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
    (CHAT, {"messages": MESSAGES, "max_tokens": 257}, "max_tokens"),
    (CHAT, {"messages": MESSAGES, "max_tokens": "many"}, "body.max_tokens"),
    (CHAT, {"messages": MESSAGES, "min_tokens": 5, "max_tokens": 4}, None),
    (CHAT, {"messages": MESSAGES, "min_tokens": -1}, None),
    (CHAT, {"messages": MESSAGES, "temperature": -0.1}, "temperature"),
    (CHAT, {"messages": MESSAGES, "top_p": 0}, "top_p"),
    (CHAT, {"messages": MESSAGES, "top_p": 1.1}, "top_p"),
    (CHAT, {"messages": MESSAGES, "presence_penalty": 2.1}, None),
    (CHAT, {"messages": MESSAGES, "repetition_penalty": 0}, None),
    (CHAT, {"messages": MESSAGES, "seed": 1 << 63}, "seed"),
    (CHAT, {"messages": MESSAGES, "priority": 1}, "priority"),
    (CHAT, {"messages": MESSAGES, "cache_salt": ""}, "cache_salt"),
    (CHAT, {"messages": MESSAGES, "cache_salt": "x" * (SALT_CHARACTERS_MAX + 1)}, "cache_salt"),
    (CHAT, {"messages": MESSAGES, "stop": [""]}, None),
    (CHAT, {"messages": MESSAGES, "stop": ["x"] * (STOPS_MAX + 1)}, "stop"),
    (CHAT, {"messages": MESSAGES, "top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": 21}, "logprobs"),
    (CHAT, {"messages": MESSAGES, "stream_options": {"include_usage": True}}, "stream_options"),
    (CHAT, {"messages": MESSAGES, "tool_choice": "required"}, "tool_choice"),
    (CHAT, {"messages": MESSAGES, "response_format": {"type": "json_schema"}}, "response_format"),
    (CHAT, {"messages": MESSAGES, "response_format": {"type": "xml"}}, "response_format"),
    (
        CHAT,
        {"messages": MESSAGES, "request_id": "x" * (REQUEST_ID_CHARACTERS_MAX + 1)},
        "request_id",
    ),
    (COMPLETION, {}, "body.prompt"),
    (COMPLETION, {"prompt": ""}, "prompt"),
    (COMPLETION, {"prompt": []}, None),
    (COMPLETION, {"prompt": [[]]}, "prompt"),
    (COMPLETION, {"prompt": ["x", 1]}, "prompt"),
    (COMPLETION, {"prompt": [-1]}, "prompt"),
    (COMPLETION, {"prompt": [1 << 32]}, "prompt"),
    (COMPLETION, {"prompt": [1] * 257}, "input_tokens"),
    (COMPLETION, {"prompt": "x " * 257}, "input_tokens"),
    (COMPLETION, {"prompt": "x" * 100_000}, "input_tokens"),
    (COMPLETION, {"prompt": "x", "suffix": "y"}, "suffix"),
    (COMPLETION, {"prompt": "x", "logprobs": LOGPROBS_MAX + 1}, "logprobs"),
    (COMPLETION, {"prompt": ["x"] * (CHOICES_MAX // 2 + 1), "n": 2}, "n"),
    ("/v1/embeddings", {}, "body.input"),
    ("/v1/embeddings", {"input": "x", "dimensions": DIMENSIONS_MAX + 1}, "dimensions"),
    ("/v1/embeddings", {"input": "x", "encoding_format": "hex"}, "encoding_format"),
    ("/v1/responses", {}, "body.input"),
    ("/v1/responses", {"input": []}, "input"),
    ("/tokenize", {}, "body.prompt"),
    ("/detokenize", {}, "body.tokens"),
    ("/detokenize", {"tokens": [-1]}, "tokens"),
]


@pytest.mark.parametrize(
    ("path", "body", "param"), BAD, ids=[f"{n}-{path[1:]}" for n, (path, _, _) in enumerate(BAD)]
)
async def test_what_makes_no_sense_is_refused(
    server: Simulated, path: str, body: dict[str, object], param: str | None
) -> None:
    reply = await server.post(path, model="sim", **body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == 400
    assert error["type"] in {"BadRequestError", "Bad Request"}
    assert error["param"] == param, error
    assert server.simulator.in_flight == 0


async def test_what_lies_at_a_bound_is_served(server: Simulated) -> None:
    used = (await server.post(CHAT, messages=MESSAGES)).json()["usage"]["prompt_tokens"]
    bodies: list[tuple[str, dict[str, object]]] = [
        (CHAT, {"messages": MESSAGES, "max_tokens": 256 - used, "ignore_eos": True}),
        (CHAT, {"messages": MESSAGES, "n": 64, "max_tokens": 1}),
        (CHAT, {"messages": MESSAGES, "seed": -(1 << 63), "stop": ["x"] * STOPS_MAX}),
        (CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": LOGPROBS_MAX}),
        (CHAT, {"messages": MESSAGES, "cache_salt": "x" * SALT_CHARACTERS_MAX}),
        (CHAT, {"messages": MESSAGES, "request_id": "x" * REQUEST_ID_CHARACTERS_MAX}),
        (COMPLETION, {"prompt": [(1 << 32) - 1] * 255, "max_tokens": 1}),
        (COMPLETION, {"prompt": ["x"] * CHOICES_MAX, "max_tokens": 1}),
        ("/v1/embeddings", {"input": [1] * 255, "dimensions": DIMENSIONS_MAX}),
    ]
    for path, body in bodies:
        reply = await server.post(path, model="sim", **body)
        assert reply.status_code == 200, reply.text
    await server.until_idle()


async def test_priorities_are_taken_where_the_queue_has_them() -> None:
    engine = replace(SMALL.engine, policy=Policy.PRIORITY)
    async with simulated(replace(SMALL, engine=engine)) as server:
        assert (await server.post(CHAT, messages=MESSAGES, priority=-5)).status_code == 200


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"{", "Bad Request"),
        (b"[1]", "Bad Request"),
        (b"", "Bad Request"),
        (b"\xff\xfe", "Bad Request"),
        (b'{"messages":' + b"[" * 5_000, "Bad Request"),
        (b'{"messages":[{"role":"user","content":"\\ud800"}]}', "Bad Request"),
    ],
    ids=["half", "list", "empty", "bytes", "deep", "surrogate"],
)
async def test_what_is_not_json_is_refused(server: Simulated, content: bytes, kind: str) -> None:
    reply = await server.client.post(CHAT, content=content)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == kind


async def test_odd_numbers_and_escapes_do_not_matter(server: Simulated) -> None:
    body = (
        rb'{ "x":1e400, "big":1180591620717411303424 ,"model" : "s\u0069m", "max_tokens":"3",'
        rb'"messages":[ {"role":"user","content":"\ud83d\ude00\/ 1E+999", "n": 1e400} ] }'
    )
    reply = await server.client.post(CHAT, content=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == "sim"
    assert reply.json()["usage"]["completion_tokens"] <= 3


async def test_unknown_models_paths_and_methods_are_refused(server: Simulated) -> None:
    reply = await server.post(CHAT, model="absent", messages=MESSAGES)
    assert reply.status_code == 404
    error = reply.json()["error"]
    assert error.pop("message") == "The model `absent` does not exist. Valid aliases: sim, other."
    assert error == {"type": "NotFoundError", "param": "model", "code": 404}
    missing = await server.client.get("/v1/nothing")
    assert missing.status_code == 404
    assert missing.json() == {"detail": "Not Found"}
    for method, path in (("POST", "/v1/models"), ("GET", CHAT), ("HEAD", "/health")):
        reply = await server.client.request(method, path)
        assert reply.status_code == 405, path
        assert reply.headers["allow"]
    assert (await server.client.head("/health")).content == b""


async def test_the_small_endpoints(server: Simulated) -> None:
    for path in ("/health", "/ping"):
        reply = await server.client.get(path)
        assert (reply.status_code, reply.content) == (200, b"")
    assert (await server.client.get("/version")).json() == {"version": "0.32.0"}
    assert (await server.client.get("/load")).json() == {"server_load": 0}
    models = (await server.client.get("/v1/models")).json()["data"]
    assert [model["id"] for model in models] == ["sim", "other"]
    assert models[0]["max_model_len"] == 256


async def test_a_request_id_comes_back(server: Simulated) -> None:
    headers = {"X-Request-Id": 'a"b'}
    reply = await server.client.post(CHAT, json={"messages": MESSAGES}, headers=headers)
    assert reply.headers["x-request-id"] == 'a"b'
    assert reply.json()["id"] == 'chatcmpl-a"b'
    reply = await server.post(CHAT, messages=MESSAGES, request_id="mine")
    assert reply.json()["id"] == "chatcmpl-mine"


async def test_keys_are_asked_for() -> None:
    async with simulated(replace(SMALL, api_keys=("one", "two"))) as server:
        for value in (None, "Bearer wrong", "one", "Basic one"):
            headers = {} if value is None else {"authorization": value}
            reply = await server.client.get("/v1/models", headers=headers)
            assert reply.status_code == 401
            assert reply.json() == {"error": "Unauthorized"}
        for value in ("Bearer one", "bearer two"):
            reply = await server.client.get("/v1/models", headers={"authorization": value})
            assert reply.status_code == 200
        for path in ("/health", "/metrics", "/load", "/version", "/ping"):
            assert (await server.client.get(path)).status_code == 200
        assert (await server.client.get("/admin/faults")).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ()},
        {"models": ("",)},
        {"latency_seconds": -0.1},
        {"startup_seconds": float("nan")},
        {"output_tokens": 0},
        {"output_tokens": USUAL_TOKENS_MAX + 1},
        {"in_flight_max": 0},
        {"queued_requests_max": -1},
        {"api_keys": ("",)},
    ],
)
def test_settings_check_themselves(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsInvalid):
        SimulatorSettings(**wrong)  # type: ignore[arg-type]  # wrong on purpose


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(SettingsInvalid, match="llama-8b-h100"):
        preset("gpt")
