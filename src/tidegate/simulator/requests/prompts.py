"""Prompts: the text that a chat, a completion or a response stands for, and its tokens."""

from array import array
from collections.abc import Iterable, Sequence

from tidegate.simulator.engine import tokens
from tidegate.simulator.requests.bodies import InputItem, Message, Part
from tidegate.simulator.requests.checks import TOKEN_ID_MAX, too_long
from tidegate.simulator.requests.refusal import Refused

# A part that is no text (an image, a sound) costs as many tokens as this text has.
_MEDIA = "<|media|>"


def chat_text(messages: Sequence[Message], *, preamble: str = "", opens: bool = True) -> str:
    """Return a chat as one text, with the place where the answer begins."""
    if not messages:
        raise Refused("messages must have at least one message.", param="messages")
    turns = [
        f"<|{message.role}|>{_after(content_text(message.content))}{_raw(message.tool_calls)}"
        " <|end|> "
        for message in messages
    ]
    return preamble + "".join(turns) + ("<|assistant|>" if opens else "")


def response_text(
    given: str | list[InputItem], instructions: str | None, *, preamble: str = ""
) -> str:
    """Return the input of a response as one text."""
    system = preamble + (f"<|system|> {instructions} <|end|> " if instructions else "")
    if isinstance(given, str):
        return f"{system}<|user|> {given} <|end|> <|assistant|>"
    if not given:
        raise Refused("input must have at least one item.", param="input")
    turns = [
        f"<|{item.role}|>{_after(content_text(item.content))}{item.arguments or ''}"
        f"{item.output or ''}"
        " <|end|> "
        for item in given
    ]
    return system + "".join(turns) + "<|assistant|>"


def content_text(content: str | Iterable[str | Part] | None) -> str:
    """Return the text of a message's content."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join([part if isinstance(part, str) else _part_text(part) for part in content])


def _part_text(part: Part) -> str:
    text = part.text if part.text is not None else part.refusal
    return _MEDIA if text is None else text


def _after(text: str) -> str:
    """Return a text with a blank before it; answers of ours have one already."""
    return text if text.startswith(" ") else " " + text


def _raw(data: bytes) -> str:
    return bytes(data).decode() if data else ""


def text_tokens(text: str, length_max: int) -> "array[int]":
    """Return the tokens of a text.

    Raises:
        Refused: it is empty, or so long that nobody needs to count its tokens.
    """
    if not text:
        raise Refused("The decoder prompt cannot be empty", param="prompt")
    if len(text) > (1 + tokens.PIECE_CHARACTERS_MAX) * length_max:
        raise too_long(0, length_max + 1, length_max)
    return tokens.tokenize(text)


def prompts_of(
    given: str | Sequence[str | int | Sequence[int]] | None, length_max: int, param: str
) -> list["array[int]"]:
    """Return the tokens of each prompt: a text, texts, token numbers, or lists of them.

    Raises:
        Refused: there is none, or they are of several kinds.
    """
    if given is None:
        raise Refused(f"Field required: {param}", kind="Bad Request", param=f"body.{param}")
    if isinstance(given, str):
        return [text_tokens(given, length_max)]
    if not given:
        raise Refused("You must pass at least one prompt")
    numbers = [item for item in given if isinstance(item, int)]
    if numbers:
        if len(numbers) != len(given):
            raise Refused("A prompt is either a text or a list of token ids.", param=param)
        return [_numbers(numbers, length_max, param)]
    return [
        text_tokens(item, length_max)
        if isinstance(item, str)
        else _numbers(_items(item), length_max, param)
        for item in given
    ]


def _items(item: str | int | Sequence[int]) -> Sequence[int]:
    assert not isinstance(item, str | int), item
    return item


def _numbers(given: Sequence[int], length_max: int, param: str) -> "array[int]":
    if not given:
        raise Refused("The decoder prompt cannot be empty", param=param)
    if len(given) > length_max:
        raise too_long(0, len(given), length_max)
    wrong = next((number for number in given if not 0 <= number <= TOKEN_ID_MAX), None)
    if wrong is not None:
        raise Refused(f"Token id {wrong} is out of vocabulary", param=param)
    return array("I", given)
