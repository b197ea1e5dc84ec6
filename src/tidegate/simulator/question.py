"""What a request asks of the simulated server, for each of its endpoints."""

from dataclasses import dataclass

import msgspec

from tidegate.simulator.settings import TOKENS_MAX

CHOICES_MAX = 16
INPUTS_MAX = 2048
ANSWERS_MAX = 128
DIMENSIONS_MAX = 4096
_DIMENSIONS = 16
_BYTES_PER_TOKEN = 4
_ABSENT = msgspec.Raw()


class StreamOptions(msgspec.Struct, frozen=True):
    """Extras of a stream."""

    include_usage: bool = False


class Body(msgspec.Struct, frozen=True):
    """The members of a body that the simulator heeds; it lets all others pass."""

    model: str | None = None
    messages: msgspec.Raw = _ABSENT
    prompt: msgspec.Raw = _ABSENT
    input: msgspec.Raw = _ABSENT
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    ignore_eos: bool = False
    n: int = 1
    stream: bool = False
    stream_options: StreamOptions | None = None
    dimensions: int | None = None
    encoding_format: str = "float"


class Unacceptable(Exception):
    """The request makes no sense as it stands.

    Attributes:
        param: the member that is wrong, or None.
    """

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class Question:
    """A body that was found acceptable.

    `inputs` are the raw JSON texts to answer: the messages, or each prompt. `tokens_max` bounds one
    answer where the request says so.
    """

    body: Body
    inputs: tuple[bytes, ...]
    tokens_max: int | None

    @property
    def input_tokens(self) -> int:
        """Count what was asked, at four bytes a token."""
        return sum(len(text) // _BYTES_PER_TOKEN + 1 for text in self.inputs)

    @property
    def dimensions(self) -> int:
        """Say how long an embedding is."""
        return self.body.dimensions or _DIMENSIONS

    def tokens(self, number: int, usual_max: int) -> int:
        """Return how many tokens an answer has: chosen by a number, inside the bounds."""
        if self.body.ignore_eos and self.tokens_max is not None:
            return self.tokens_max
        usual = (usual_max + 1) // 2 + number % (usual_max // 2 + 1)
        return usual if self.tokens_max is None else min(usual, self.tokens_max)


_decode = msgspec.json.Decoder(Body).decode
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


def read_body(data: bytes) -> Body:
    """Decode a body.

    Raises:
        Unacceptable: it is not JSON, or a member has the wrong type.
    """
    try:
        return _decode(data)
    except msgspec.ValidationError as error:
        raise Unacceptable(f"The body is not acceptable: {error}.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unacceptable(f"The body is not JSON: {error}.") from error


def ask_chat(body: Body) -> Question:
    """Read a chat completion's body."""
    messages = _required(body.messages, "messages")
    if not messages.startswith(b"[") or not _decode_list(messages):
        raise Unacceptable("Give messages as a list with at least one message.", "messages")
    limit = body.max_completion_tokens
    return _question(body, (messages,), body.max_tokens if limit is None else limit)


def ask_completion(body: Body) -> Question:
    """Read a completion's body."""
    inputs = _several(_required(body.prompt, "prompt"), "prompt")
    if len(inputs) * body.n > ANSWERS_MAX:
        raise Unacceptable(f"Ask for at most {ANSWERS_MAX} answers at a time.", "n")
    return _question(body, inputs, body.max_tokens)


def ask_embedding(body: Body) -> Question:
    """Read an embedding's body."""
    if body.dimensions is not None and not 1 <= body.dimensions <= DIMENSIONS_MAX:
        raise Unacceptable(f"Set dimensions from 1 to {DIMENSIONS_MAX}.", "dimensions")
    if body.encoding_format not in {"float", "base64"}:
        raise Unacceptable("Set encoding_format to float or base64.", "encoding_format")
    return _question(body, _several(_required(body.input, "input"), "input"), None)


def ask_response(body: Body) -> Question:
    """Read a response's body."""
    if body.stream:
        raise Unacceptable("The simulator does not stream responses: leave out stream.", "stream")
    return _question(body, (_required(body.input, "input"),), body.max_output_tokens)


def _question(body: Body, inputs: tuple[bytes, ...], tokens_max: int | None) -> Question:
    if not 1 <= body.n <= CHOICES_MAX:
        raise Unacceptable(f"Set n from 1 to {CHOICES_MAX}.", "n")
    if tokens_max is not None and tokens_max < 1:
        raise Unacceptable("Set the limit of tokens to 1 or more.", "max_tokens")
    return Question(body, inputs, None if tokens_max is None else min(tokens_max, TOKENS_MAX))


def _required(value: msgspec.Raw, name: str) -> bytes:
    text = bytes(value)
    if text in {b"", b"null"}:
        raise Unacceptable(f"The body has no {name}.", name)
    return text


def _several(text: bytes, name: str) -> tuple[bytes, ...]:
    """Split a list of inputs; a text, or a list of token numbers, is one."""
    if not text.startswith(b"["):
        return (text,)
    items = [bytes(item) for item in _decode_list(text)]
    if not 1 <= len(items) <= INPUTS_MAX:
        raise Unacceptable(f"Give {name} as 1 to {INPUTS_MAX} texts.", name)
    if items[0][:1].isdigit():
        return (text,)
    return tuple(items)
