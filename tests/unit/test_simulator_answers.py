"""The simulated server answers as a model server does: shapes, usage, streams, refusals."""

import base64
import json
import struct
from collections.abc import AsyncIterator

import httpx
import httpx2
import openai
import pytest

from tidegate.domain.errors import SettingsInvalid
from tidegate.simulator.app import CREATED, Simulator, build_simulator
from tidegate.simulator.exchange import BODY_BYTES_MAX
from tidegate.simulator.question import ANSWERS_MAX, CHOICES_MAX, DIMENSIONS_MAX, INPUTS_MAX
from tidegate.simulator.settings import TOKENS_MAX, SimulatorSettings

MESSAGES = [{"role": "user", "content": "Say something."}]


def client_of(simulator: Simulator) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(simulator), base_url="http://sim")


@pytest.fixture
def simulator() -> Simulator:
    return build_simulator(SimulatorSettings(models=("sim", "other")))


@pytest.fixture
async def client(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(simulator) as client:
        yield client


@pytest.fixture
async def sdk(simulator: Simulator) -> AsyncIterator[openai.AsyncOpenAI]:
    client = httpx2.AsyncClient(transport=httpx2.ASGITransport(simulator))
    async with openai.AsyncOpenAI(
        api_key="none", base_url="http://sim/v1", http_client=client, max_retries=0
    ) as sdk:
        yield sdk


async def test_a_chat_by_the_sdk(sdk: openai.AsyncOpenAI) -> None:
    completion = await sdk.chat.completions.create(
        model="sim", messages=[{"role": "user", "content": "Hello?"}], max_tokens=5, n=2
    )
    assert completion.id.startswith("chatcmpl-")
    assert completion.model == "sim"
    assert [choice.index for choice in completion.choices] == [0, 1]
    for choice in completion.choices:
        assert choice.finish_reason == "length"
        assert choice.message.content is not None
        assert len(choice.message.content.split()) == 5
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 10
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 10


async def test_a_streamed_chat_says_what_the_whole_one_says(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="sim",
        messages=[{"role": "user", "content": "Hello?"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == len("".join(words).split()) == len(chunks) - 3


async def test_completions_by_the_sdk(sdk: openai.AsyncOpenAI) -> None:
    completion = await sdk.completions.create(model="sim", prompt=["One", "Two"], max_tokens=3)
    assert [choice.index for choice in completion.choices] == [0, 1]
    assert all(len(choice.text.split()) == 3 for choice in completion.choices)
    one = await sdk.completions.create(model="sim", prompt=[1, 2, 3], max_tokens=3)
    assert len(one.choices) == 1
    stream = await sdk.completions.create(model="sim", prompt="One", max_tokens=3, stream=True)
    texts = [chunk.choices[0].text async for chunk in stream]
    assert len("".join(texts).split()) == 3


async def test_embeddings_by_the_sdk(sdk: openai.AsyncOpenAI) -> None:
    found = await sdk.embeddings.create(model="sim", input=["a", "b", "a"], dimensions=7)
    vectors = [item.embedding for item in found.data]
    assert [len(vector) for vector in vectors] == [7, 7, 7]
    assert vectors[0] == vectors[2] != vectors[1]
    assert found.usage.total_tokens == 3


async def test_embeddings_are_the_same_in_both_encodings(client: httpx.AsyncClient) -> None:
    body: dict[str, object] = {"model": "sim", "input": "a", "dimensions": 4}
    plain = (await client.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"]
    packed = await client.post("/v1/embeddings", json=body | {"encoding_format": "base64"})
    unpacked = struct.unpack("<4f", base64.b64decode(packed.json()["data"][0]["embedding"]))
    assert list(unpacked) == pytest.approx(plain, abs=1e-5)


async def test_a_response_by_the_sdk(sdk: openai.AsyncOpenAI) -> None:
    response = await sdk.responses.create(model="sim", input="Hello?")
    assert response.status == "completed"
    assert response.usage is not None
    assert len(response.output_text.split()) == response.usage.output_tokens
    short = await sdk.responses.create(model="sim", input="Hello?", max_output_tokens=1)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None
    assert short.incomplete_details.reason == "max_output_tokens"


async def test_models_by_the_sdk(sdk: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == ["sim", "other"]


async def test_answers_are_a_function_of_seed_and_body(client: httpx.AsyncClient) -> None:
    body = json.dumps({"model": "sim", "messages": MESSAGES}).encode()
    first = await client.post("/v1/chat/completions", content=body)
    again = await client.post("/v1/chat/completions", content=body)
    other = await client.post("/v1/chat/completions", content=body + b" ")
    async with client_of(build_simulator(SimulatorSettings(seed=1))) as stranger:
        seeded = await stranger.post("/v1/chat/completions", content=body)
    assert first.content == again.content
    assert len({first.content, other.content, seeded.content}) == 3
    assert first.json()["created"] == CREATED


async def test_a_clock_tells_when_an_answer_was_made() -> None:
    class Noon:
        def now(self) -> float:
            return 43_200.9

    async with client_of(build_simulator(SimulatorSettings(), Noon())) as client:
        reply = await client.post("/v1/completions", json={"model": "sim", "prompt": "x"})
    assert reply.json()["created"] == 43_200


async def test_odd_numbers_and_escapes_do_not_matter(client: httpx.AsyncClient) -> None:
    body = (
        rb'{ "x":1e400, "big":1180591620717411303424 ,"model" : "s\u0069m",'
        rb'"messages":[ {"role":"user","content":"\ud83d\ude00\/ 1E+999", "n": 1e400} ] }'
    )
    reply = await client.post("/v1/chat/completions", content=body)
    assert reply.status_code == 200
    assert reply.json()["model"] == "sim"


async def test_answers_have_the_length_that_was_asked_for(client: httpx.AsyncClient) -> None:
    lengths = set()
    for number in range(30):
        body = {"model": "sim", "prompt": f"{number}"}
        reply = (await client.post("/v1/completions", json=body)).json()
        assert len(reply["choices"][0]["text"].split()) == reply["usage"]["completion_tokens"]
        lengths.add(reply["usage"]["completion_tokens"])
    assert lengths <= set(range(8, 17))
    assert len(lengths) > 3
    most = {"model": "sim", "prompt": "x", "max_tokens": TOKENS_MAX + 1, "ignore_eos": True}
    reply = (await client.post("/v1/completions", json=most)).json()
    assert reply["usage"]["completion_tokens"] == TOKENS_MAX
    assert len(reply["choices"][0]["text"].split()) == TOKENS_MAX


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("chat/completions", {}, "messages"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": "x"}, "messages"),
        ("chat/completions", {"messages": MESSAGES, "n": CHOICES_MAX + 1}, "n"),
        ("chat/completions", {"messages": MESSAGES, "n": 0}, "n"),
        ("chat/completions", {"messages": MESSAGES, "max_tokens": 0}, "max_tokens"),
        ("chat/completions", {"messages": MESSAGES, "max_tokens": "7"}, None),
        ("completions", {"prompt": None}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": ["x"] * (ANSWERS_MAX + 1)}, "n"),
        ("embeddings", {"input": ["x"] * (INPUTS_MAX + 1)}, "input"),
        ("embeddings", {"input": "x", "dimensions": DIMENSIONS_MAX + 1}, "dimensions"),
        ("embeddings", {"input": "x", "encoding_format": "hex"}, "encoding_format"),
        ("responses", {}, "input"),
        ("responses", {"input": "x", "stream": True}, "stream"),
    ],
)
async def test_what_makes_no_sense_is_refused(
    client: httpx.AsyncClient, path: str, body: dict[str, object], param: str | None
) -> None:
    reply = await client.post(f"/v1/{path}", json={"model": "sim", **body})
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param


async def test_what_lies_at_a_bound_is_served(client: httpx.AsyncClient) -> None:
    bodies: dict[str, dict[str, object]] = {
        "chat/completions": {"messages": MESSAGES, "n": CHOICES_MAX},
        "completions": {"prompt": ["x"] * ANSWERS_MAX},
        "embeddings": {"input": ["x"] * INPUTS_MAX, "dimensions": 2},
    }
    for path, body in bodies.items():
        reply = await client.post(f"/v1/{path}", json={"model": "sim", **body})
        assert reply.status_code == 200, reply.text


async def test_bodies_that_are_not_json_or_too_large_are_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("/v1/embeddings", content=b"{")).status_code == 400
    assert (await client.post("/v1/embeddings", content=b"[1]")).status_code == 400
    large = b" " * (BODY_BYTES_MAX + 1)
    assert (await client.post("/v1/embeddings", content=large)).status_code == 413

    async def in_pieces() -> AsyncIterator[bytes]:
        for _ in range(17):
            yield bytes(1 << 20)

    assert (await client.post("/v1/embeddings", content=in_pieces())).status_code == 413


async def test_unknown_models_paths_and_methods_are_refused(client: httpx.AsyncClient) -> None:
    body = {"model": "absent", "messages": MESSAGES}
    reply = await client.post("/v1/chat/completions", json=body)
    assert reply.status_code == 404
    assert reply.json()["error"]["message"] == "The model `absent` does not exist."
    assert (await client.get("/v1/nothing")).status_code == 404
    assert (await client.post("/v1/models")).status_code == 404
    assert (await client.get("/v1/chat/completions")).status_code == 405


async def test_metrics_count_what_was_served(
    client: httpx.AsyncClient, simulator: Simulator
) -> None:
    body = {"model": "other", "prompt": "x", "max_tokens": 4}
    for _ in range(3):
        await client.post("/v1/completions", json=body)
    text = (await client.get("/metrics")).text
    assert 'vllm:request_success_total{model_name="other"} 3' in text
    assert 'vllm:request_success_total{model_name="sim"} 0' in text
    assert 'vllm:generation_tokens_total{model_name="other"} 12' in text
    assert "vllm:num_requests_running 0" in text
    assert simulator.served == {"other": 3}


@pytest.mark.parametrize(
    "wrong",
    [
        {"models": ()},
        {"latency_seconds": -0.1},
        {"model_factors": {"sim": -1.0}},
        {"output_tokens": 0},
        {"output_tokens": TOKENS_MAX + 1},
        {"in_flight_max": 0},
        {"full_status": 500},
    ],
)
def test_settings_check_themselves(wrong: dict[str, object]) -> None:
    with pytest.raises(SettingsInvalid):
        SimulatorSettings(**wrong)  # type: ignore[arg-type]  # wrong on purpose
