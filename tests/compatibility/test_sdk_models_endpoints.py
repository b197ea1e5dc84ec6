"""Models and endpoints: which there are, many in one file, and bodies that nobody meddles with."""

import asyncio
import json
from collections.abc import Mapping

import openai
import pytest

from testkit.users.sdk import sdk_user
from tidegate.api.settings import Settings
from tidegate.application.settings import Settings as DeskSettings
from tidegate.testing.deployment import model_of, ok, request_line
from tidegate.upstreams.base import Call, Reply

IMAGE = "data:image/png;base64," + "iVBORw0KGgo" * 200
TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "strict": True,
        "parameters": {"type": "object", "properties": {"q": {"type": ["string", "null"]}}},
    },
}
BODIES: list[tuple[str, dict[str, object]]] = [
    (
        "/v1/chat/completions",
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": IMAGE, "detail": "low"}},
                        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                        {"type": "file", "file": {"file_id": "file-elsewhere"}},
                    ],
                },
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [
                        {
                            "id": "call_1",
                            "type": "function",
                            "function": {"name": "look_up", "arguments": '{"q": null}'},
                        }
                    ],
                },
                {"role": "tool", "tool_call_id": "call_1", "content": "a tide table"},
            ],
            "tools": [TOOL],
            "tool_choice": "required",
            "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
            "stream": False,
            "logit_bias": {"50256": -100},
            "chat_template_kwargs": {"enable_thinking": False},
        },
    ),
    ("/v1/completions", {"prompt": ["one", "two"], "max_tokens": 5, "echo": True}),
    ("/v1/completions", {"prompt": [[1, 2, 3]], "suffix": None}),
    ("/v1/embeddings", {"input": ["one", "two"], "dimensions": 256}),
    ("/v1/embeddings", {"input": [[1, 2, 3]], "encoding_format": "base64"}),
    (
        "/v1/responses",
        {
            "input": [{"role": "user", "content": [{"type": "input_image", "image_url": IMAGE}]}],
            "instructions": "Be brief.",
            "tools": [{"type": "web_search"}],
            "reasoning": {"effort": "low"},
        },
    ),
    ("/v1/rerank", {"query": "tides", "documents": ["sea", "land"], "top_n": 1}),
]
USAGES: dict[str, Mapping[str, object]] = {
    "/v1/embeddings": {"prompt_tokens": 4, "total_tokens": 4},
    "/v1/responses": {
        "input_tokens": 4,
        "input_tokens_details": {"cached_tokens": 3},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 1},
    },
}


@pytest.mark.parametrize(
    ("endpoint", "members"), BODIES, ids=[f"{n}-{path[4:]}" for n, (path, _) in enumerate(BODIES)]
)
async def test_a_body_of_every_endpoint_passes_untouched(
    endpoint: str, members: dict[str, object]
) -> None:
    seen: list[Call] = []
    usage = USAGES.get(endpoint, {"prompt_tokens": 4, "completion_tokens": 2})

    async def answer(call: Call) -> Reply:
        seen.append(call)
        body = json.dumps({"object": "anything", "usage": usage}).encode()
        return Reply(status=200, headers={}, body=body)

    body = json.dumps({"model": "m", **members})
    line = f'{{"custom_id":"a","method":"POST","url":"{endpoint}","body":{body}}}\n'
    settings = Settings(batch_api=DeskSettings(extra_endpoints=("/v1/rerank",)))
    async with sdk_user(answer, settings=settings) as user:
        created = await user.create(await user.upload(line.encode()), endpoint=endpoint)
        batch = await user.end_of(created.id)
        assert (batch.status, batch.errors, batch.endpoint) == ("completed", None, endpoint)
        assert [(call.path, call.body) for call in seen] == [(endpoint, body.encode())]
        assert batch.usage is not None
        output = 0 if endpoint == "/v1/embeddings" else 2
        assert (batch.usage.input_tokens, batch.usage.output_tokens) == (4, output)
        assert batch.usage.total_tokens == 4 + output
        deep = endpoint == "/v1/responses"
        assert batch.usage.input_tokens_details.cached_tokens == (3 if deep else 0)
        assert batch.usage.output_tokens_details.reasoning_tokens == (1 if deep else 0)


async def test_models_are_listed_and_looked_at() -> None:
    async def answer(call: Call) -> Reply:
        return ok()

    async with sdk_user(answer) as user:
        found = [model async for model in user.client.models.list()]
        assert [model.id for model in found] == ["tide-1", "org/tide-2"]
        for model in found:
            assert (model.object, model.owned_by) == ("model", "tidegate")
            assert model.created > 0
            # The SDK writes the slash of a name as %2F.
            assert await user.client.models.retrieve(model.id) == model
        with pytest.raises(openai.NotFoundError) as caught:
            await user.client.models.retrieve("org/tide-3")
        assert caught.value.message.endswith("The model 'org/tide-3' does not exist.")
        assert (caught.value.param, caught.value.code) == ("model", "model_not_found")


async def test_models_of_one_file_run_side_by_side() -> None:
    """The slow model answers only when the fast one has answered every line of its own."""
    fast_done, slow_asked = asyncio.Event(), asyncio.Event()
    served: list[str] = []

    async def answer_fast(call: Call) -> Reply:
        await slow_asked.wait()
        served.append(model_of(call))
        if len(served) == 20:
            fast_done.set()
        return ok("fast")

    async def answer_slow(call: Call) -> Reply:
        slow_asked.set()
        await fast_done.wait()
        return ok("slow")

    lines = [request_line(f"{model}-{n}", model) for n in range(20) for model in ("slow", "fast")]
    async with sdk_user({"fast": answer_fast, "slow": answer_slow}) as user:
        batch = await user.end_of((await user.submit(lines)).id)
        assert batch.status == "completed"
        assert batch.request_counts is not None
        assert batch.request_counts.completed == 40
        assert batch.model is None, "no one model ran it"
        extra = batch.to_dict()["tidegate"]
        assert isinstance(extra, dict)
        assert sorted(extra["models"]) == ["fast", "slow"]
        assert len(await user.results(batch.output_file_id)) == 40
