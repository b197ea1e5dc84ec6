"""What an answer repeats of its prompt, and how much that is."""

from array import array

from tidegate.simulator.answers.generation import Choice
from tidegate.simulator.engine.tokens import detokenize
from tidegate.simulator.requests import prompts
from tidegate.simulator.requests.bodies import ChatBody


def chat_echo(body: ChatBody) -> str:
    """Return what is repeated of a chat: its last message, if the answer goes on with it."""
    if not body.echo or not body.messages:
        return ""
    last = body.messages[-1]
    goes_on = last.role == "assistant" or not body.add_generation_prompt
    return prompts.content_text(last.content) if goes_on else ""


def texts_of(
    given: str | list[str | int | list[int]] | None, found: list["array[int]"]
) -> list[str | None]:
    """Return the text of each prompt, where it is one and not tokens."""
    if isinstance(given, str):
        return [given]
    texts = [text if isinstance(text, str) else None for text in given or ()]
    return texts if len(texts) == len(found) else [None] * len(found)


def echoes(texts: list[str | None], found: list["array[int]"]) -> tuple[str, ...]:
    """Return what is repeated of each prompt."""
    return tuple(text or detokenize(prompt) for text, prompt in zip(texts, found, strict=True))


def likely(choices: list[Choice], top: int | None) -> int:
    """Count the likely tokens that answers show."""
    return 0 if top is None else (top + 1) * sum(choice.plan.total for choice in choices)


def likely_of_prompts(found: list["array[int]"], top: int | None) -> int:
    """Count the likely tokens that are shown of prompts."""
    return 0 if top is None else (top + 1) * sum(map(len, found))
