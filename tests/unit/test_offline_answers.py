"""Result lines as cells, and the pace of a run in words."""

import json

import pytest

from tidegate.cli.run_view import one_line
from tidegate.domain.batch import Batch, Counts, Status
from tidegate.domain.errors import StorageFull
from tidegate.domain.usage import Usage
from tidegate.offline.answers import read_result_row
from tidegate.offline.progress import RATE_SECONDS, Phase, Progress
from tidegate.wire.results import error_line, reply_line


def answered(body: object, status: int = 200) -> bytes:
    raw = json.dumps(body).encode()
    return reply_line("batch_req_a_1", b'"id"', status=status, upstream_id="u", body=raw)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"choices": [{"message": {"content": "hi"}}]}, "hi"),
        ({"choices": [{"text": "hi"}]}, "hi"),
        ({"data": [{"embedding": [1, 2.5]}]}, "[1, 2.5]"),
        (
            {"output": [{"type": "message", "content": [{"type": "output_text", "text": "hi"}]}]},
            "hi",
        ),
        ({"output": [{"type": "reasoning", "content": None}]}, None),
        ({"choices": [{"message": {"content": None, "tool_calls": [1]}}]}, None),
        ({"choices": []}, None),
        ([1], None),
        ("text", None),
    ],
)
def test_the_text_of_an_answer_is_found_else_its_json(body: object, text: str | None) -> None:
    found = read_result_row(answered(body)).response
    assert found == (json.dumps(body) if text is None else text)


def test_tokens_are_reported_if_the_server_reports_them() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    answer = read_result_row(answered({"choices": [{"text": "a"}], "usage": usage}))
    assert (answer.custom_id, answer.input_tokens, answer.output_tokens) == ("id", 3, 2)
    assert read_result_row(answered({"choices": []})).input_tokens is None


def test_what_failed_says_why() -> None:
    refused = read_result_row(answered({"error": {"message": "too long"}}, 400))
    assert (refused.response, refused.error) == (None, "400: too long")
    assert read_result_row(answered({"oh": 1}, 404)).error == '404: {"oh": 1}'
    line = error_line("batch_req_a_1", b'"id"', code="processor_crashed", message="Why.")
    assert read_result_row(line).error == "processor_crashed: Why."


def test_lone_surrogates_do_not_break_a_table() -> None:
    raw = b'{"choices":[{"message":{"content":"a\\ud800b"}}],"usage":{"prompt_tokens":1}}'
    line = reply_line("batch_req_a_1", b'"i\\ud800"', status=200, upstream_id="u", body=raw)
    answer = read_result_row(line)
    assert (answer.custom_id, answer.response) == ("i\ufffd", "a\ufffdb")
    failed = error_line("batch_req_a_1", b'"\\ud800"', code="c", message="m")
    assert read_result_row(failed).error == "c: m"


@pytest.mark.parametrize(
    "raw",
    [
        b'{"x":' + b"9" * 5_000 + b"}",
        b'{"x":1e400,"y":"\\ud800"}',
        b'{"data":[{"embedding":[' + b"9" * 5_000 + b"]}]}",
        b'{"output":[{"content":5},7,{"content":[{"type":"output_text","text":1},2]}]}',
        b'{"choices":[5],"error":[1]}',
        b'{"error":{"message":' + b"9" * 5_000 + b"}}",
        b"[" * 900 + b"]" * 900,
    ],
    ids=["digits", "infinite", "an embedding of digits", "output", "choices", "error", "deep"],
)
@pytest.mark.parametrize("status", [200, 400])
def test_any_answer_of_a_server_has_a_place_in_a_table(raw: bytes, status: int) -> None:
    line = reply_line("batch_req_a_1", b'"id"', status=status, upstream_id="u", body=raw)
    answer = read_result_row(line)
    assert answer.custom_id == "id"
    assert (answer.error is None) is (status == 200)
    assert answer.response is not None or answer.error is not None


def batch(done: int, tokens: int = 0, status: Status = Status.IN_PROGRESS) -> Batch:
    return Batch(
        id="batch_a",
        tenant="default",
        endpoint="/v1/chat/completions",
        input_file_id="file-a",
        completion_window="24h",
        status=status,
        created_at=0.0,
        expires_at=1.0,
        counts=Counts(total=1_000, completed=done - done // 10, failed=done // 10),
        usage=Usage(output_tokens=tokens),
    )


def test_the_pace_is_that_of_the_last_seconds() -> None:
    progress = Progress()
    assert one_line(progress.snapshot()) == "reading; in flight 0 of 0"
    progress.update(batch(0, status=Status.VALIDATING), 0.0)
    assert progress.snapshot().phase is Phase.PLANNING
    assert progress.snapshot().lines_per_second is None
    for second in range(1, 101):
        done = second if second <= 50 else 50 + 4 * (second - 50)
        progress.update(batch(done, 10 * done), float(second))
    progress.on_load(in_flight=7, open_shards=1, uncommitted=0)
    progress.on_endpoint_state("gateway/m", limit=16, in_flight=7, reason=None)
    seen = progress.snapshot()
    assert RATE_SECONDS == 30.0
    assert seen.lines_per_second == pytest.approx(4.0)
    assert seen.tokens_per_second == pytest.approx(40.0)
    assert seen.seconds_left == pytest.approx(750 / 4)
    words = "250 of 1,000 done, 25 failed; in flight 7 of 16, 4.0 lines/s, 40 tokens/s, 3m 08s left"
    assert one_line(seen) == words


def test_a_reason_is_reported_once() -> None:
    progress = Progress()
    progress.update(batch(1), 0.0)
    progress.on_endpoint_state("upstream", limit=1, in_flight=0, reason="refused")
    assert one_line(progress.snapshot()).endswith("; waiting: upstream: refused")
    progress.on_store_unavailable(StorageFull("The disk is full."))
    assert progress.snapshot().reason == "The disk is full."
    progress.on_load(in_flight=0, open_shards=0, uncommitted=0)
    progress.on_endpoint_state("upstream", limit=1, in_flight=0, reason=None)
    assert progress.snapshot().reason is None
