"""The bodies of requests: the members that are heeded, with their types; all others pass."""

import re
from collections.abc import Callable
from typing import TypeVar

import msgspec

from tidegate.simulator.requests.refusal import Refused

T = TypeVar("T")
ABSENT = msgspec.Raw()
_PLACE = re.compile(r"at `\$\.(\w+)")
_MISSING = re.compile(r"missing required field `(\w+)`")


class StreamOptions(msgspec.Struct, frozen=True):
    """Extras of a stream."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class KvTransfer(msgspec.Struct, frozen=True):
    """The origin or destination of keys and values."""

    do_remote_prefill: bool = False
    do_remote_decode: bool = False


class JsonSchema(msgspec.Struct, frozen=True, rename={"definition": "schema"}):
    """A schema under its name."""

    name: str = ""
    definition: msgspec.Raw = ABSENT


class ResponseFormat(msgspec.Struct, frozen=True):
    """What the text of an answer must be."""

    type: str = "text"
    json_schema: JsonSchema | None = None


class StructuredOutputs(msgspec.Struct, frozen=True):
    """vLLM's own way to say what the text of an answer must be."""

    choice: list[str] | None = None
    json: msgspec.Raw = ABSENT
    json_object: bool | None = None
    regex: str | None = None
    grammar: str | None = None
    structural_tag: str | None = None


class Function(msgspec.Struct, frozen=True):
    """A function that may be called."""

    name: str
    parameters: msgspec.Raw = ABSENT


class Tool(msgspec.Struct, frozen=True):
    """A tool: always a function."""

    function: Function
    type: str = "function"


class Part(msgspec.Struct, frozen=True):
    """A part of a message's content; of parts that are not text only the type counts."""

    type: str = "text"
    text: str | None = None
    refusal: str | None = None


class Message(msgspec.Struct, frozen=True):
    """A message of a chat."""

    role: str
    content: str | list[str | Part] | None = None
    tool_calls: msgspec.Raw = ABSENT


class Body(msgspec.Struct, frozen=True):
    """The members that several endpoints share, under vLLM's names."""

    model: str | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    seed: int | None = None
    max_tokens: int | None = None
    min_tokens: int | None = 0
    ignore_eos: bool = False
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    priority: int = 0
    cache_salt: str | None = None
    request_id: str | None = None
    kv_transfer_params: KvTransfer | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    prompt_logprobs: int | None = None
    use_beam_search: bool = False
    metadata: msgspec.Raw = ABSENT


class ChatBody(Body, frozen=True):
    """`POST /v1/chat/completions`."""

    messages: list[Message] | None = None
    max_completion_tokens: int | None = None
    logprobs: bool | None = False
    top_logprobs: int | None = 0
    echo: bool = False
    tools: list[Tool] | None = None
    tool_choice: str | Tool | None = None
    parallel_tool_calls: bool | None = True
    add_generation_prompt: bool = True


class CompletionBody(Body, frozen=True):
    """`POST /v1/completions`."""

    prompt: str | list[str | int | list[int]] | None = None
    logprobs: int | None = None
    echo: bool | None = False
    suffix: str | None = None


class EmbeddingBody(msgspec.Struct, frozen=True):
    """`POST /v1/embeddings`."""

    model: str | None = None
    input: str | list[str | int | list[int]] | None = None
    messages: list[Message] | None = None
    dimensions: int | None = None
    encoding_format: str | None = "float"
    priority: int = 0
    request_id: str | None = None
    metadata: msgspec.Raw = ABSENT


class InputItem(msgspec.Struct, frozen=True):
    """An item of the input of a response: a message, or the call or the output of a function."""

    type: str = "message"
    role: str = "user"
    content: str | list[str | Part] | None = None
    output: str | None = None
    arguments: str | None = None


class TextFormat(msgspec.Struct, frozen=True, rename={"definition": "schema"}):
    """What the text of a response must be."""

    type: str = "text"
    definition: msgspec.Raw = ABSENT


class TextOptions(msgspec.Struct, frozen=True):
    """Options of the text of a response."""

    format: TextFormat | None = None


class ResponseTool(msgspec.Struct, frozen=True):
    """A tool of a response; only functions can be called."""

    type: str = "function"
    name: str | None = None
    parameters: msgspec.Raw = ABSENT


class ResponseBody(msgspec.Struct, frozen=True):
    """`POST /v1/responses`."""

    model: str | None = None
    input: str | list[InputItem] | None = None
    instructions: str | None = None
    stream: bool | None = False
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    text: TextOptions | None = None
    tools: list[ResponseTool] | None = None
    tool_choice: str | ResponseTool | None = None
    parallel_tool_calls: bool | None = True
    structured_outputs: StructuredOutputs | None = None
    priority: int = 0
    cache_salt: str | None = None
    request_id: str | None = None
    previous_response_id: str | None = None
    metadata: msgspec.Raw = ABSENT


class ResponseRepeated(msgspec.Struct, frozen=True):
    """What a response repeats of its request, as it came."""

    tools: msgspec.Raw = ABSENT
    tool_choice: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT


class TokenizeBody(msgspec.Struct, frozen=True):
    """`POST /tokenize`: a prompt, or the messages of a chat."""

    model: str | None = None
    prompt: str | None = None
    messages: list[Message] | None = None
    add_generation_prompt: bool = True
    return_token_strs: bool | None = False


class DetokenizeBody(msgspec.Struct, frozen=True):
    """`POST /detokenize`."""

    tokens: list[int]
    model: str | None = None


# Numbers may be written as texts, as vLLM's own models take them.
decode_chat = msgspec.json.Decoder(ChatBody, strict=False).decode
decode_completion = msgspec.json.Decoder(CompletionBody, strict=False).decode
decode_embedding = msgspec.json.Decoder(EmbeddingBody, strict=False).decode
decode_response = msgspec.json.Decoder(ResponseBody, strict=False).decode
decode_repeated = msgspec.json.Decoder(ResponseRepeated).decode
decode_tokenize = msgspec.json.Decoder(TokenizeBody, strict=False).decode
decode_detokenize = msgspec.json.Decoder(DetokenizeBody, strict=False).decode


def read(decode: Callable[[bytes], T], data: bytes) -> T:
    """Return a body, decoded.

    Raises:
        Refused: it is not JSON, or not of the right shape.
    """
    try:
        return decode(data)
    except msgspec.ValidationError as error:
        text = str(error)
        place = _PLACE.search(text) or _MISSING.search(text)
        param = f"body.{place[1]}" if place else None
        raise Refused(text, kind="Bad Request", param=param) from error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Refused(f"JSON decode error: {error}", kind="Bad Request") from error
