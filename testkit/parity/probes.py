"""What both servers are asked. The order counts: the metrics come last and have seen it all."""

import json

import msgspec

_HELLO = [{"role": "user", "content": "Say hello to the world."}]
_WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
_NAMED = {"type": "function", "function": {"name": "weather"}}
_SCHEMA = {
    "type": "json_schema",
    "json_schema": {
        "name": "size",
        "schema": {
            "type": "object",
            "properties": {"kind": {"enum": ["big", "small"]}},
            "required": ["kind"],
            "additionalProperties": False,
        },
    },
}
_LONG = {"max_tokens": 5, "ignore_eos": True, "temperature": 0}
_SHOWN = {"include_usage": True}
_CHAT, _TEXT = "/v1/chat/completions", "/v1/completions"
TOO_MANY_TOKENS = 1_000_000


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One question. `body` is the text of a POST, or None for a GET."""

    name: str
    path: str
    body: str | None = None
    method: str = ""


def probes(model: str) -> list[Probe]:
    """Return all questions to a server of this model."""
    return [
        *_plain(),
        *_chats(model),
        *_completions(model),
        *_others(model),
        *_wrong(model),
        Probe(name="metrics", path="/metrics"),
    ]


def _post(name: str, path: str, **body: object) -> Probe:
    return Probe(name=name, path=path, body=json.dumps(body))


def _plain() -> list[Probe]:
    paths = {"models": "/v1/models", "health": "/health", "version": "/version", "ping": "/ping"}
    paths |= {"load": "/load", "is_sleeping": "/is_sleeping", "kv_sources": "/kv_event_sources"}
    return [Probe(name=name, path=path) for name, path in paths.items()]


def _chats(model: str) -> list[Probe]:
    base = {"model": model, "messages": _HELLO, **_LONG}
    streamed = {**base, "stream": True}
    forced = {**base, "tools": [_WEATHER], "max_tokens": 64, "ignore_eos": False}
    return [
        _post("chat", _CHAT, **base),
        _post("chat.n", _CHAT, **base | {"n": 2, "temperature": 1, "seed": 7}),
        _post("chat.stop", _CHAT, **base, stop=["\u4e16\u754c"]),
        _post("chat.logprobs", _CHAT, **base, logprobs=True, top_logprobs=2),
        _post("chat.seed", _CHAT, **base, seed=7, min_tokens=2),
        _post("chat.schema", _CHAT, **forced | {"tools": None, "response_format": _SCHEMA}),
        _post("chat.tool", _CHAT, **forced, tool_choice=_NAMED),
        _post("chat.stream", _CHAT, **streamed),
        _post("chat.stream.usage", _CHAT, **streamed, stream_options=_SHOWN),
        _post("chat.stream.logprobs", _CHAT, **streamed, logprobs=True, top_logprobs=1),
        _post("chat.stream.n", _CHAT, **streamed | {"n": 2, "temperature": 1, "seed": 7}),
    ]


def _completions(model: str) -> list[Probe]:
    base = {"model": model, "prompt": "Once upon a time", **_LONG}
    streamed = {**base, "stream": True}
    return [
        _post("completion", _TEXT, **base),
        _post("completion.several", _TEXT, **base | {"prompt": ["One", "Two"]}),
        _post("completion.ids", _TEXT, **base | {"prompt": [5, 6, 7]}),
        _post("completion.n", _TEXT, **base | {"n": 2, "temperature": 1, "seed": 7}),
        _post("completion.logprobs", _TEXT, **base, logprobs=2),
        _post("completion.echo", _TEXT, **base, echo=True),
        _post("completion.stream", _TEXT, **streamed),
        _post("completion.stream.usage", _TEXT, **streamed, stream_options=_SHOWN),
    ]


def _others(model: str) -> list[Probe]:
    response = {"model": model, "input": "Say hello.", "max_output_tokens": 3}
    return [
        _post("embedding", "/v1/embeddings", model=model, input="x"),
        _post("response", "/v1/responses", **response),
        _post("response.stream", "/v1/responses", **response, stream=True),
        _post("tokenize", "/tokenize", model=model, prompt="Hello world"),
        _post("tokenize.chat", "/tokenize", model=model, messages=_HELLO),
        _post("detokenize", "/detokenize", model=model, tokens=[5, 6]),
        _post("reset_prefix_cache", "/reset_prefix_cache"),
    ]


def _wrong(model: str) -> list[Probe]:
    # A server that takes a wrong bound must still come to an end.
    usual = {**_LONG, "ignore_eos": False}
    chat = {"model": model, "messages": _HELLO, **usual}
    text = {"model": model, "prompt": "x", **usual}
    return [
        Probe(name="error.json", path=_CHAT, body="{"),
        Probe(name="error.path", path="/v1/absent"),
        Probe(name="error.method", path=_CHAT),
        _post("error.model", _CHAT, **chat | {"model": "absent"}),
        _post("error.model.text", _TEXT, **text | {"model": "absent"}),
        _post("error.messages", _CHAT, model=model),
        _post("error.type", _CHAT, **chat | {"messages": 5}),
        _post("error.max_tokens", _CHAT, **chat | {"max_tokens": TOO_MANY_TOKENS}),
        _post("error.max_tokens.zero", _CHAT, **chat | {"max_tokens": 0}),
        _post("error.max_tokens.negative", _TEXT, **text | {"max_tokens": -1}),
        _post("error.length", _TEXT, **text | {"prompt": "word " * 1_500}),
        _post("error.temperature", _CHAT, **chat | {"temperature": -1}),
        _post("error.field", _CHAT, **chat | {"temperature": "hot"}),
        _post("error.top_p", _CHAT, **chat | {"top_p": 2}),
        _post("error.n", _CHAT, **chat | {"n": 0}),
        _post("error.n.greedy", _CHAT, **chat | {"n": 2}),
        _post("error.logprobs", _CHAT, **chat, logprobs=True, top_logprobs=200),
        _post("error.stream_options", _CHAT, **chat, stream_options=_SHOWN),
        _post("error.min_tokens", _CHAT, **chat, min_tokens=6),
        _post("error.stop", _TEXT, **text, stop=[""]),
        _post("error.prompt", _TEXT, **text | {"prompt": []}),
        _post("error.salt", _CHAT, **chat, cache_salt=""),
        _post("error.stream", _CHAT, **chat | {"model": "absent"}, stream=True),
    ]
