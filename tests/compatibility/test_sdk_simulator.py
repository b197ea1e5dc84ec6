"""The OpenAI SDK believes the simulated server: chats, tools, schemas, streams, vectors, errors."""

import json
from collections.abc import AsyncIterator
from dataclasses import replace

import openai
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam

from testkit.servers.simulated import simulated
from tidegate.simulator.settings import SimulatorSettings

SETTINGS = SimulatorSettings(models=("sim", "other"))
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello?"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "minLength": 4, "maxLength": 12},
                "days": {"type": "integer", "minimum": 1, "maximum": 7},
                "unit": {"enum": ["C", "F"]},
            },
            "required": ["city", "days", "unit"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture
async def sdk() -> AsyncIterator[openai.AsyncOpenAI]:
    async with (
        simulated(SETTINGS) as server,
        openai.AsyncOpenAI(api_key="none", base_url=f"{server.url}/v1", max_retries=0) as sdk,
    ):
        yield sdk


def check_weather(arguments: str) -> None:
    found = json.loads(arguments)
    assert set(found) == {"city", "days", "unit"}
    assert 4 <= len(found["city"]) <= 12
    assert 1 <= found["days"] <= 7
    assert found["unit"] in {"C", "F"}


async def test_a_chat(sdk: openai.AsyncOpenAI) -> None:
    completion = await sdk.chat.completions.create(
        model="sim", messages=HELLO, max_tokens=5, n=2, extra_body={"ignore_eos": True}
    )
    assert completion.id.startswith("chatcmpl-")
    assert completion.system_fingerprint is not None
    assert completion.system_fingerprint.startswith("vllm-0.32.0-")
    assert [choice.index for choice in completion.choices] == [0, 1]
    texts = [choice.message.content or "" for choice in completion.choices]
    assert [len(text.split()) for text in texts] == [5, 5]
    assert texts[0] != texts[1]
    assert completion.usage is not None
    assert completion.usage.completion_tokens == 10
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + 10


async def test_a_streamed_chat_says_what_the_whole_one_says(sdk: openai.AsyncOpenAI) -> None:
    whole = await sdk.chat.completions.create(model="sim", messages=HELLO, seed=3)
    stream = await sdk.chat.completions.create(
        model="sim", messages=HELLO, seed=3, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    words = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(words) == whole.choices[0].message.content
    assert chunks[-2].choices[0].finish_reason == whole.choices[0].finish_reason
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == len(chunks) - 2
    cached = chunks[-1].usage.prompt_tokens_details
    assert cached is not None


async def test_several_choices_are_streamed_side_by_side(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="sim", messages=HELLO, n=3, max_tokens=4, stream=True, extra_body={"ignore_eos": True}
    )
    words: dict[int, list[str]] = {0: [], 1: [], 2: []}
    drain = []
    async for chunk in stream:
        choice = chunk.choices[0]
        words[choice.index].append(choice.delta.content or "")
        drain += [choice.index] if choice.finish_reason else []
    assert sorted(drain) == [0, 1, 2]
    assert [len("".join(said).split()) for said in words.values()] == [4, 4, 4]


async def test_a_tool_is_called_with_arguments_that_fit(sdk: openai.AsyncOpenAI) -> None:
    for seed in range(8):
        completion = await sdk.chat.completions.create(
            model="sim", messages=HELLO, tools=[WEATHER], tool_choice="required", seed=seed
        )
        choice = completion.choices[0]
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content is None
        assert choice.message.tool_calls
        for call in choice.message.tool_calls:
            assert call.type == "function"
            assert call.function.name == "weather"
            check_weather(call.function.arguments)


async def test_left_alone_it_calls_a_tool_now_and_then(sdk: openai.AsyncOpenAI) -> None:
    reasons = set()
    for seed in range(20):
        completion = await sdk.chat.completions.create(
            model="sim", messages=HELLO, tools=[WEATHER], seed=seed, max_tokens=64
        )
        reasons.add(completion.choices[0].finish_reason == "tool_calls")
    assert reasons == {True, False}


async def test_a_streamed_call_comes_in_pieces(sdk: openai.AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model="sim",
        messages=HELLO,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "weather"}},
        stream=True,
    )
    arguments, names, pieces = "", [], 0
    async for chunk in stream:
        for call in chunk.choices[0].delta.tool_calls or ():
            assert call.function is not None
            pieces += 1
            arguments += call.function.arguments or ""
            names += [call.function.name] if call.function.name else []
    assert names == ["weather"]
    assert pieces > 3
    check_weather(arguments)


async def test_an_answer_fits_its_schema(sdk: openai.AsyncOpenAI) -> None:
    schema = WEATHER["function"]["parameters"]
    completion = await sdk.chat.completions.create(
        model="sim",
        messages=HELLO,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "weather", "schema": dict(schema), "strict": True},
        },
    )
    check_weather(completion.choices[0].message.content or "")
    completion = await sdk.chat.completions.create(
        model="sim", messages=HELLO, response_format={"type": "json_object"}
    )
    assert isinstance(json.loads(completion.choices[0].message.content or ""), dict)
    completion = await sdk.chat.completions.create(
        model="sim",
        messages=HELLO,
        extra_body={"structured_outputs": {"choice": ["ja", "vielleicht nicht"]}},
    )
    assert completion.choices[0].message.content in {"ja", "vielleicht nicht"}


async def test_log_probabilities_are_of_the_tokens_that_were_said(sdk: openai.AsyncOpenAI) -> None:
    completion = await sdk.chat.completions.create(
        model="sim", messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=3
    )
    choice = completion.choices[0]
    assert choice.logprobs is not None
    told = choice.logprobs.content or []
    assert "".join(entry.token for entry in told) == choice.message.content
    for entry in told:
        assert entry.logprob <= 0
        assert entry.top_logprobs[0].token == entry.token
        assert len({top.token for top in entry.top_logprobs}) == 3
        assert entry.top_logprobs == sorted(entry.top_logprobs, key=lambda top: -top.logprob)


async def test_completions_of_every_kind_of_prompt(sdk: openai.AsyncOpenAI) -> None:
    prompts: list[tuple[str | list[str] | list[int] | list[list[int]], int]] = [
        ("One", 1),
        (["One", "Two"], 2),
        ([1, 2, 3], 1),
        ([[1, 2], [3]], 2),
    ]
    for prompt, choices in prompts:
        completion = await sdk.completions.create(
            model="sim", prompt=prompt, max_tokens=3, extra_body={"ignore_eos": True}
        )
        assert [choice.index for choice in completion.choices] == list(range(choices))
        assert all(len(choice.text.split()) == 3 for choice in completion.choices)
        assert all(choice.finish_reason == "length" for choice in completion.choices)


async def test_a_completion_echoes_and_streams(sdk: openai.AsyncOpenAI) -> None:
    completion = await sdk.completions.create(
        model="sim", prompt="Once", max_tokens=3, echo=True, logprobs=2
    )
    choice = completion.choices[0]
    assert choice.text.startswith("Once ")
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset is not None
    assert choice.logprobs.text_offset[:2] == [0, len("Once")]
    stream = await sdk.completions.create(model="sim", prompt="Once", max_tokens=3, stream=True)
    assert "Once" + "".join([chunk.choices[0].text async for chunk in stream]) == choice.text


async def test_embeddings(sdk: openai.AsyncOpenAI) -> None:
    found = await sdk.embeddings.create(model="sim", input=["a", "b", "a"], dimensions=7)
    vectors = [item.embedding for item in found.data]
    assert [len(vector) for vector in vectors] == [7, 7, 7]
    assert vectors[0] == vectors[2] != vectors[1]
    assert sum(number * number for number in vectors[0]) == pytest.approx(1.0, abs=1e-5)
    plain = await sdk.embeddings.create(
        model="sim", input="a", dimensions=7, encoding_format="float"
    )
    assert plain.data[0].embedding == pytest.approx(vectors[0], abs=1e-5)


async def test_a_response_whole_and_streamed(sdk: openai.AsyncOpenAI) -> None:
    response = await sdk.responses.create(model="sim", input="Hello?")
    assert response.status == "completed"
    assert response.usage is not None
    assert len(response.output_text.split()) == response.usage.output_tokens
    stream = await sdk.responses.create(model="sim", input="Hello?", stream=True)
    events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    said = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(said) == response.output_text
    last = events[-1]
    assert last.type == "response.completed"
    assert last.response.output_text == response.output_text
    short = await sdk.responses.create(model="sim", input="Hello?", max_output_tokens=1)
    assert short.status == "incomplete"
    assert short.incomplete_details is not None


async def test_a_response_calls_a_function(sdk: openai.AsyncOpenAI) -> None:
    response = await sdk.responses.create(
        model="sim",
        input="Hello?",
        tool_choice="required",
        tools=[
            {
                "type": "function",
                "name": "weather",
                "parameters": dict(WEATHER["function"]["parameters"]),
                "strict": True,
            }
        ],
    )
    call = response.output[0]
    assert call.type == "function_call"
    check_weather(call.arguments)


async def test_models(sdk: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in sdk.models.list()] == ["sim", "other"]


async def test_errors_are_of_the_right_classes() -> None:
    settings = replace(SETTINGS, api_keys=("secret",))
    async with simulated(settings) as server:
        good = openai.AsyncOpenAI(api_key="secret", base_url=f"{server.url}/v1", max_retries=0)
        bad = openai.AsyncOpenAI(api_key="wrong", base_url=f"{server.url}/v1", max_retries=0)
        async with good, bad:
            with pytest.raises(openai.AuthenticationError):
                await bad.chat.completions.create(model="sim", messages=HELLO)
            with pytest.raises(openai.NotFoundError) as unknown:
                await good.chat.completions.create(model="absent", messages=HELLO)
            assert unknown.value.type == "NotFoundError"
            assert unknown.value.param == "model"
            with pytest.raises(openai.BadRequestError) as long:
                await good.chat.completions.create(model="sim", messages=HELLO, max_tokens=10**6)
            assert long.value.param == "max_tokens"
            assert (await good.chat.completions.create(model="sim", messages=HELLO)).choices


async def test_a_streamed_response_calls_functions(sdk: openai.AsyncOpenAI) -> None:
    parameters = dict(WEATHER["function"]["parameters"])
    counts = set()
    for number in range(12):
        stream = await sdk.responses.create(
            model="sim",
            input=f"Hello {number}?",
            tool_choice="required",
            tools=[
                {"type": "function", "name": name, "parameters": parameters, "strict": True}
                for name in ("weather", "climate")
            ],
            stream=True,
        )
        events = [event async for event in stream]
        assert [event.sequence_number for event in events] == list(range(len(events)))
        last = events[-1]
        assert last.type == "response.completed"
        done = [each for each in events if each.type == "response.function_call_arguments.done"]
        counts.add(len(done))
        calls = [item for item in last.response.output if item.type == "function_call"]
        assert [call.arguments for call in calls] == [each.arguments for each in done]
        for call in calls:
            check_weather(call.arguments)
    assert counts == {1, 2}
