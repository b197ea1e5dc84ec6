"""Any reply becomes exactly one line of a result file, with the body that came."""

import json
from dataclasses import dataclass

from hypothesis import strategies as st

from testkit.fuzz.jsonl import JSON, TELLING, parsed
from testkit.fuzz.mutations import edited, edits
from testkit.fuzz.target import Target
from tidegate.domain.usage import NO_USAGE
from tidegate.endpoints.classify import classify_reply
from tidegate.offline.answers import read_result_row
from tidegate.upstreams.base import Reply

USAGE = st.dictionaries(
    st.sampled_from(
        ["prompt_tokens", "completion_tokens", "input_tokens", "prompt_tokens_details"]
    ),
    JSON,
)
NAMES = ["choices", "message", "content", "text", "data", "embedding", "output", "type", "error"]
# What looks like an answer, for those who read its text.
SHAPES = st.recursive(
    JSON | st.just("output_text"),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)
REPLIES = JSON | SHAPES | st.fixed_dictionaries({"usage": USAGE | JSON}, optional={"id": JSON})
BODIES = (
    st.builds(
        lambda value, ascii_only, indent, changes: edited(
            json.dumps(value, ensure_ascii=ascii_only, indent=indent).encode(
                "utf-8", "surrogatepass"
            ),
            changes,
        ),
        REPLIES,
        st.booleans(),
        st.none() | st.just(1),
        edits(TELLING),
    )
    | st.binary(max_size=60)
    | st.integers(1, 3_000).map(lambda depth: b"[" * depth + b"]" * depth)
)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model server says, and to whom."""

    body: bytes
    status: int
    request_id: str | None
    custom_id: str


INPUTS = st.builds(
    Answer,
    BODIES,
    st.sampled_from([200, 201, 299, 300, 400, 404, 429, 500, 503, 599]),
    st.none() | st.text(st.characters(max_codepoint=255), max_size=20),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
)
DEPTH_MAX = 400


def check(answer: Answer) -> None:
    """Hold the line to the reply."""
    headers = {} if answer.request_id is None else {"x-request-id": answer.request_id}
    reply = Reply(status=answer.status, headers=headers, body=answer.body)
    custom_id = json.dumps(answer.custom_id).encode()
    outcome = classify_reply(reply, "batch_req_1", custom_id, starting=False)
    line = outcome.line
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert b"\r" not in line
    if answer.body.count(b"[") > DEPTH_MAX:
        # How deep a reply may be depends on the stack; it is a line either way.
        return
    read = parsed(line)
    assert isinstance(read, dict)
    assert read["custom_id"] == answer.custom_id
    assert (read["response"] is None) != (read["error"] is None)
    assert read_result_row(line).custom_id == answer.custom_id, "not fit for a table"
    is_json = _is_json(answer.body)
    if is_json:
        body = answer.body.translate(None, b"\r\n")
        assert line.endswith(b'"body":' + body + b'},"error":null}\n'), "not byte for byte"
    success = 200 <= answer.status < 300  # noqa: PLR2004 - HTTP's own numbers
    assert outcome.is_error == (not success or not is_json)
    assert not outcome.is_error or outcome.usage == NO_USAGE


def _is_json(raw: bytes) -> bool:
    try:
        parsed(raw)
    except (ValueError, RecursionError):
        return False
    return True


TARGET = Target(name="splicing", inputs=INPUTS, check=check)
