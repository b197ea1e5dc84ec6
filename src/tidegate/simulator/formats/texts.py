"""What the styles share: names, usage, and the text of tokens."""

import json
from array import array
from typing import NamedTuple

from tidegate.simulator.answers.generation import Choice, Generation
from tidegate.simulator.engine import tokens

VERSION = "0.32.0"
FINGERPRINT = f"vllm-{VERSION}-simulated"
LAST_FINGERPRINT = f',"system_fingerprint":"{FINGERPRINT}"'
DONE = b"data: [DONE]\n\n"
BLOCK_OF_TRANSFER = 16


class Names(NamedTuple):
    """What an answer is called. Texts are JSON already, with their quotes."""

    id: str
    created: int
    model: str


def content(choice: Choice, start: int, stop: int) -> str:
    """Return the text of some tokens of a choice."""
    pieces = choice.plan.pieces
    if pieces is not None:
        return "".join(pieces[start:stop])
    return tokens.text(ids(choice, start, stop))


def piece(choice: Choice, place: int) -> str:
    """Return the text of one token of a choice."""
    return content(choice, place, place + 1)


def arguments_of(choice: Choice, index: int) -> str:
    """Return the arguments of a call, as far as the answer goes."""
    plan = choice.plan
    return "".join([piece(choice, at) for at in range(plan.total) if plan.marks[at] == index])


def ids(choice: Choice, start: int, stop: int) -> "array[int]":
    """Return some tokens of a choice."""
    assert choice.sequence is not None, "read before it was submitted"
    return array("I", choice.sequence.outputs.ids(start, stop))


def content_json(choice: Choice, start: int, stop: int) -> str:
    """Return the text of some tokens as JSON, with its quotes."""
    if choice.plan.pieces is None:
        return f'"{content(choice, start, stop)}"'  # Drawn words need no escapes.
    return json.dumps(content(choice, start, stop))


def stop_reason_json(choice: Choice) -> str:
    """Return what ended a choice, as JSON."""
    reason = choice.plan.stop_reason
    return "null" if reason is None else json.dumps(reason)


def usage_json(generation: Generation, *, created: int | None = None) -> str:
    """Return the usage of a whole reply in the vocabulary of completions."""
    counts, cached = _counts(generation, generation.output_tokens), generation.cached_tokens
    return (
        f'{{{counts},"prompt_tokens_details":{{"cached_tokens":{cached},'
        f'"created_cache_tokens":{json.dumps(created)},"multimodal_tokens":null}},'
        '"completion_tokens_details":null}'
    )


def stream_usage_json(generation: Generation, output: int | None = None, extra: str = "") -> str:
    """Return the usage in an event; `output` tokens so far, or all. What is null is left out."""
    counts = _counts(generation, generation.output_tokens if output is None else output)
    cached = generation.cached_tokens
    return f'{{{counts},"prompt_tokens_details":{{"cached_tokens":{cached}{extra}}}}}'


def _counts(generation: Generation, output: int) -> str:
    prompt = generation.prompt_tokens
    total = prompt + output
    return f'"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{output}'


def transfer_json(generation: Generation, *, is_prefill: bool, engine_id: str) -> str:
    """Return where the keys and values of a prompt can be had, if that was asked for."""
    if not is_prefill:
        return "null"
    prompt = generation.prompt_tokens
    blocks = list(range(-(-prompt // BLOCK_OF_TRANSFER)))
    return json.dumps(
        {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": [blocks],
            "remote_engine_id": engine_id,
            "remote_request_id": engine_id,
            "remote_host": "127.0.0.1",
            "remote_port": 5600,
            "tp_size": 1,
        }
    )
