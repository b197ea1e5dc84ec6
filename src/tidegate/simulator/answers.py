"""The JSON of each kind of answer, put together from ready pieces.

Everything in an answer but `created` is a function of the seed and the request's body.
"""

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import shake_256

from tidegate.simulator.prose import Prose
from tidegate.simulator.question import Question

_CHAT = (
    '{"id":"chatcmpl-%016x","object":"chat.completion","created":%d,"model":%s,"choices":[%s],'
    '"usage":%s}'
)
_CHAT_CHOICE = (
    '{"index":%d,"message":{"role":"assistant","content":"%s"},'
    '"logprobs":null,"finish_reason":"%s"}'
)
_COMPLETION = (
    '{"id":"cmpl-%016x","object":"text_completion","created":%d,"model":%s,"choices":[%s],'
    '"usage":%s}'
)
_COMPLETION_CHOICE = '{"index":%d,"text":"%s","logprobs":null,"finish_reason":"%s"}'
_RESPONSE = (
    '{"id":"resp_%016x","object":"response","created_at":%d,"status":"%s","error":null,'
    '"incomplete_details":%s,"model":%s,"output":[{"id":"msg_%016x","type":"message",'
    '"status":"completed","role":"assistant","content":[{"type":"output_text","text":"%s",'
    '"annotations":[]}]}],"usage":{"input_tokens":%d,"input_tokens_details":{"cached_tokens":0},'
    '"output_tokens":%d,"output_tokens_details":{"reasoning_tokens":0},"total_tokens":%d}}'
)
_USAGE = '{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}'
_EMBEDDING = '{"object":"embedding","index":%d,"embedding":%s}'
_EMBEDDINGS = (
    '{"object":"list","data":[%s],"model":%s,"usage":{"prompt_tokens":%d,"total_tokens":%d}}'
)
_CHUNK = 'data: {"id":"%s","object":"%s","created":%d,"model":%s,"choices":[%s]%s}\n\n'
_CHAT_DELTA = '{"index":%d,"delta":{%s},"logprobs":null,"finish_reason":%s}'
_STREAM_END = b"data: [DONE]\n\n"

# One byte of a digest, as a number from -1 to 1 and as its text.
_NUMBERS = [(byte - 127.5) / 127.5 for byte in range(256)]
_NUMBER_TEXTS = [f"{number:.6f}" for number in _NUMBERS]


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said, before it is written down. `texts` has one entry for each choice."""

    digest: int
    created: int
    question: Question
    texts: tuple[str, ...]
    tokens: tuple[int, ...]

    @property
    def output_tokens(self) -> int:
        """Count the tokens of every choice."""
        return sum(self.tokens)

    @property
    def model_json(self) -> str:
        """Return the model's name as JSON text."""
        return json.dumps(self.question.body.model)

    def finish(self, choice: int) -> str:
        """Say why a choice ends where it ends."""
        return "length" if self.tokens[choice] == self.question.tokens_max else "stop"

    @property
    def usage_json(self) -> str:
        """Return the usage in the vocabulary of completions."""
        count = self.question.input_tokens
        return _USAGE % (count, self.output_tokens, count + self.output_tokens)


def think(prose: Prose, question: Question, digest: int, created: int, tokens_max: int) -> Answer:
    """Decide what to say to a question: `n` choices for each of its inputs."""
    choices = len(question.inputs) * question.body.n
    numbers = [digest + 7919 * choice for choice in range(choices)]
    tokens = [question.tokens(number >> 12, tokens_max) for number in numbers]
    texts = [prose.piece(number, count) for number, count in zip(numbers, tokens, strict=True)]
    return Answer(digest, created, question, tuple(texts), tuple(tokens))


def write_chat(answer: Answer) -> bytes:
    """Return a chat completion."""
    choices = ",".join(
        _CHAT_CHOICE % (index, text, answer.finish(index))
        for index, text in enumerate(answer.texts)
    )
    return (
        _CHAT % (answer.digest, answer.created, answer.model_json, choices, answer.usage_json)
    ).encode()


def write_completion(answer: Answer) -> bytes:
    """Return a completion."""
    choices = ",".join(
        _COMPLETION_CHOICE % (index, text, answer.finish(index))
        for index, text in enumerate(answer.texts)
    )
    return (
        _COMPLETION % (answer.digest, answer.created, answer.model_json, choices, answer.usage_json)
    ).encode()


def write_response(answer: Answer) -> bytes:
    """Return a response."""
    is_cut = answer.finish(0) == "length"
    count = answer.question.input_tokens
    return (
        _RESPONSE
        % (
            answer.digest,
            answer.created,
            "incomplete" if is_cut else "completed",
            '{"reason":"max_output_tokens"}' if is_cut else "null",
            answer.model_json,
            answer.digest,
            answer.texts[0],
            count,
            answer.output_tokens,
            count + answer.output_tokens,
        )
    ).encode()


def write_embeddings(question: Question, prose: Prose) -> bytes:
    """Return one vector for each input: the same input, the same vector."""
    vectors = []
    for index, text in enumerate(question.inputs):
        number = prose.digest(text)
        choice = shake_256(number.to_bytes(8, "big")).digest(question.dimensions)
        if question.body.encoding_format == "base64":
            packed = struct.pack(f"<{len(choice)}f", *[_NUMBERS[byte] for byte in choice])
            vector = f'"{base64.b64encode(packed).decode()}"'
        else:
            vector = f"[{','.join([_NUMBER_TEXTS[byte] for byte in choice])}]"
        vectors.append(_EMBEDDING % (index, vector))
    count = question.input_tokens
    model = json.dumps(question.body.model)
    return (_EMBEDDINGS % (",".join(vectors), model, count, count)).encode()


def stream_chat(answer: Answer) -> Iterator[bytes]:
    """Yield a chat completion event by event, one token in each but the first and the last ones."""
    head = (f"chatcmpl-{answer.digest:016x}", "chat.completion.chunk")

    def event(index: int, delta: str, finish: str) -> bytes:
        return _event(answer, head, _CHAT_DELTA % (index, delta, finish))

    for index in range(len(answer.texts)):
        yield event(index, '"role":"assistant","content":""', "null")
    for index, word in _words(answer):
        yield event(index, f'"content":"{word}"', "null")
    for index in range(len(answer.texts)):
        yield event(index, "", f'"{answer.finish(index)}"')
    yield from _stream_end(answer, head)


def stream_completion(answer: Answer) -> Iterator[bytes]:
    """Yield a completion event by event, one token in each but the last ones."""
    head = (f"cmpl-{answer.digest:016x}", "text_completion")
    choice = '{"index":%d,"text":"%s","logprobs":null,"finish_reason":%s}'
    for index, word in _words(answer):
        yield _event(answer, head, choice % (index, word, "null"))
    for index in range(len(answer.texts)):
        yield _event(answer, head, choice % (index, "", f'"{answer.finish(index)}"'))
    yield from _stream_end(answer, head)


def _words(answer: Answer) -> Iterator[tuple[int, str]]:
    for index, text in enumerate(answer.texts):
        for place, word in enumerate(text.split(" ")):
            yield index, f" {word}" if place else word


def _event(answer: Answer, head: tuple[str, str], choices: str, usage: str = "") -> bytes:
    return (_CHUNK % (*head, answer.created, answer.model_json, choices, usage)).encode()


def _stream_end(answer: Answer, head: tuple[str, str]) -> Iterator[bytes]:
    options = answer.question.body.stream_options
    if options is not None and options.include_usage:
        yield _event(answer, head, "", f',"usage":{answer.usage_json}')
    yield _STREAM_END
