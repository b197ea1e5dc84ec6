"""`echo` and `prompt_logprobs`, as vLLM has them."""

import json
import math
from collections.abc import AsyncIterator

import pytest

from testkit.servers.simulated import Simulated, simulated
from tidegate.simulator.engine.settings import EngineSettings
from tidegate.simulator.engine.tokens import VOCABULARY
from tidegate.simulator.requests.checks import LOGPROBS_MAX
from tidegate.simulator.settings import SimulatorSettings

CHAT = "/v1/chat/completions"
COMPLETION = "/v1/completions"
PROMPT = "One two  three-fold and twentyfourcharactersandmore."
MESSAGES = [{"role": "user", "content": "Say something."}]


@pytest.fixture
async def server() -> AsyncIterator[Simulated]:
    size = EngineSettings(max_model_len=4_096, kv_blocks=1_024)
    async with simulated(SimulatorSettings(engine=size)) as server:
        yield server


@pytest.mark.parametrize("prompt", [PROMPT, [5, 6, 70_000]])
async def test_log_probabilities_of_a_prompt(server: Simulated, prompt: str | list[int]) -> None:
    body = {"prompt": prompt, "max_tokens": 2}
    plain = (await server.post(COMPLETION, **body)).json()["choices"][0]
    assert plain["prompt_logprobs"] is None
    choice = (await server.post(COMPLETION, **body, prompt_logprobs=3)).json()["choices"][0]
    assert choice["text"] == plain["text"]
    ids = prompt
    if isinstance(prompt, str):
        ids = (await server.post("/tokenize", prompt=prompt)).json()["tokens"]
    places = choice["prompt_logprobs"]
    assert places[0] is None
    assert len(places) == len(ids)
    for token, place in zip(ids[1:], places[1:], strict=True):
        assert 3 <= len(place) <= 4
        assert str(token) in place
        for each in place.values():
            assert set(each) == {"logprob", "rank", "decoded_token"}
            assert each["logprob"] == pytest.approx(-math.log(2) * each["rank"])
    said = [
        place[str(token)]["decoded_token"] for token, place in zip(ids[1:], places[1:], strict=True)
    ]
    if isinstance(prompt, str):
        assert prompt.endswith("".join(said))


async def test_the_same_beginning_has_the_same_log_probabilities(server: Simulated) -> None:
    places = []
    for end in ("x", "y z"):
        found = (
            await server.post(COMPLETION, prompt=f"One two three {end}", prompt_logprobs=1)
        ).json()["choices"][0]
        places.append(found["prompt_logprobs"])
    first, second = places
    assert first[:3] == second[:3]
    assert first[3] != second[3]


async def test_who_wants_them_computes_the_whole_prompt(server: Simulated) -> None:
    body = {"prompt": [7] * 64, "max_tokens": 1}
    await server.post(COMPLETION, **body)
    for more, cached in (({}, 48), ({"prompt_logprobs": 0}, 0), ({"prompt_logprobs": None}, 48)):
        usage = (await server.post(COMPLETION, **body, **more)).json()["usage"]
        assert isinstance(usage, dict)
        assert usage["prompt_tokens_details"]["cached_tokens"] == cached
    assert await server.metric("vllm:prefix_cache_queries_total") == 3 * 64
    assert await server.metric("vllm:prefix_cache_hits_total") == 2 * 48


async def test_a_chat_returns_them_beside_its_choices(server: Simulated) -> None:
    found = (await server.post(CHAT, messages=MESSAGES, prompt_logprobs=2, n=2)).json()
    places, usage = found["prompt_logprobs"], found["usage"]
    assert len(places) == usage["prompt_tokens"]
    stream = await server.post(CHAT, messages=MESSAGES, prompt_logprobs=0, stream=True)
    assert stream.status_code == 200


@pytest.mark.parametrize("limit", [0, 3])
async def test_echo_repeats_the_prompt(server: Simulated, limit: int) -> None:
    body = {"prompt": PROMPT, "echo": True, "max_tokens": limit, "logprobs": 1}
    found = (await server.post(COMPLETION, **body)).json()
    choice = found["choices"][0]
    usage = found["usage"]
    tokens = choice["logprobs"]["tokens"]
    assert choice["text"].startswith(PROMPT)
    assert "".join(tokens) == choice["text"]
    assert len(tokens) == usage["prompt_tokens"] + limit
    # vLLM makes one token in any case.
    assert usage["completion_tokens"] == max(limit, 1)
    assert choice["finish_reason"] == "length"
    assert (choice["text"] == PROMPT) == (limit == 0)
    rows = choice["logprobs"]
    assert rows["token_logprobs"][0] is None
    assert rows["top_logprobs"][0] is None
    for text, value, top in zip(
        tokens[1:], rows["token_logprobs"][1:], rows["top_logprobs"][1:], strict=True
    ):
        assert top[text] == value
        assert 1 <= len(top) <= 2
    for text, offset in zip(tokens, rows["text_offset"], strict=True):
        assert choice["text"][offset : offset + len(text)] == text
    assert len(choice["prompt_logprobs"]) == usage["prompt_tokens"]


@pytest.mark.parametrize("limit", [0, 3])
async def test_a_stream_begins_with_what_it_repeats(server: Simulated, limit: int) -> None:
    body = {"prompt": [PROMPT, "b"], "echo": True, "max_tokens": limit, "logprobs": 0, "n": 2}
    whole = [
        (choice["text"], choice["logprobs"]["tokens"], choice["logprobs"]["text_offset"])
        for choice in (await server.post(COMPLETION, **body)).json()["choices"]
    ]
    streamed: list[tuple[str, list[str], list[int]]] = [("", [], []) for _ in whole]
    events = (await server.post(COMPLETION, **body, stream=True)).text
    for row in events.splitlines():
        if not row.startswith("data: {"):
            continue
        for choice in json.loads(row[6:])["choices"]:
            text, tokens, offsets = streamed[choice["index"]]
            tokens += choice["logprobs"]["tokens"]
            offsets += choice["logprobs"]["text_offset"]
            streamed[choice["index"]] = text + choice["text"], tokens, offsets
    assert streamed == whole
    assert len(events.split('"text":"One')) == 3  # It stands in the first event, and in no more.


async def test_a_chat_repeats_only_what_it_goes_on_with(server: Simulated) -> None:
    open_end = [*MESSAGES, {"role": "assistant", "content": "Well,"}]
    for messages, more, repeats in (
        (MESSAGES, {}, False),
        (open_end, {}, True),
        (MESSAGES, {"add_generation_prompt": False}, True),
    ):
        body = {"messages": messages, "echo": True, "max_tokens": 2, **more}
        found = (await server.post(CHAT, **body)).json()
        said = found["choices"][0]["message"]["content"]
        assert said.startswith(messages[-1]["content"]) == repeats
        assert found["prompt_logprobs"] is not None


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETION, {"prompt_logprobs": -2}, "prompt_logprobs"),
        (COMPLETION, {"prompt_logprobs": -1}, "prompt_logprobs"),
        (COMPLETION, {"prompt_logprobs": LOGPROBS_MAX + 1}, "prompt_logprobs"),
        (COMPLETION, {"prompt_logprobs": 1, "stream": True}, "prompt_logprobs"),
        (COMPLETION, {"prompt_logprobs": -1, "stream": True}, "prompt_logprobs"),
        (COMPLETION, {"logprobs": -2}, "logprobs"),
        (COMPLETION, {"logprobs": -1}, "logprobs"),
        (COMPLETION, {"max_tokens": 0}, "max_tokens"),
        (COMPLETION, {"echo": True, "max_tokens": 0, "min_tokens": 2}, None),
        (COMPLETION, {"use_beam_search": True, "n": 2}, "use_beam_search"),
        (CHAT, {"use_beam_search": True}, "use_beam_search"),
        (CHAT, {"prompt_logprobs": 2, "stream": True}, "prompt_logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": -1}, "logprobs"),
        (CHAT, {"logprobs": True, "top_logprobs": -2}, "top_logprobs"),
        (CHAT, {"top_logprobs": 2}, "top_logprobs"),
    ],
)
async def test_what_vllm_refuses_is_refused(
    server: Simulated, path: str, body: dict[str, object], param: str | None
) -> None:
    usual = {"prompt": "x"} if path == COMPLETION else {"messages": MESSAGES}
    reply = await server.post(path, **usual, **body)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert error["type"] == "BadRequestError"
    assert error["param"] == param


async def test_all_of_the_vocabulary_is_named_by_its_size(server: Simulated) -> None:
    reply = await server.post(COMPLETION, prompt="x", prompt_logprobs=-1)
    assert reply.json()["error"]["message"].startswith(
        f"Requested prompt logprobs of {VOCABULARY}, which is greater than max allowed: "
    )
