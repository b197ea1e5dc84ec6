import json

import pytest

from tidegate.domain.usage import Usage
from tidegate.wire.results import error_line, quoted_in_error, read_reply_body, reply_line


def test_a_body_is_spliced_byte_for_byte() -> None:
    raw = b'{"x": 1e400 ,"y":1180591620717411303424,"z":"\\u00e9\\/\xc3\xa9","a":[ ]}'
    body = read_reply_body(raw)
    assert body is not None
    assert body.raw == raw
    line = reply_line("batch_req_1", b'"a\\u0062"', status=200, upstream_id="r1", body=body.raw)
    assert raw in line
    assert line.endswith(b'},"error":null}\n')
    assert b'"custom_id":"a\\u0062"' in line


def test_raw_newlines_are_removed_and_nothing_else() -> None:
    body = read_reply_body(b'{\r\n  "a": "x\\ny",\n  "b": 1\n}\n')
    assert body is not None
    assert body.raw == b'{  "a": "x\\ny",  "b": 1}'


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{",
        b"not JSON",
        b'{"a":NaN}',
        b'{"a":"\xff"}',
        b"{} {}",
        b'{"a":"\n"}',
        b'\xef\xbb\xbf{"a":"\\u001f"}',
        '{"a":"\\u001f"}'.encode("utf-16-le"),
    ],
)
def test_what_is_not_json_is_never_spliced(raw: bytes) -> None:
    assert read_reply_body(raw) is None


@pytest.mark.parametrize(
    "raw",
    [
        b"[1,2]",
        b'"text"',
        b'{"usage":7}',
        b'{"usage":{"prompt_tokens":"x"}}',
        b'{"a":"\\ud800"}',
        b'["\\ud800",' + b"9" * 5_000 + b"]",
    ],
)
def test_json_of_another_shape_is_spliced_without_usage(raw: bytes) -> None:
    body = read_reply_body(raw)
    assert body is not None
    assert (body.raw, body.usage) == (raw, Usage())


def test_a_broken_reply_of_another_shape_is_still_refused() -> None:
    assert read_reply_body(b'{"usage":7,') is None
    assert read_reply_body(b'{"a":"\\ud800",') is None


def test_usage_is_read_in_both_vocabularies() -> None:
    chat = {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
    }
    responses = {
        "input_tokens": 3,
        "output_tokens": 4,
        "input_tokens_details": {"cached_tokens": 2},
        "output_tokens_details": {"reasoning_tokens": 1},
    }
    expected = Usage(input_tokens=3, cached_tokens=2, output_tokens=4, reasoning_tokens=1)
    for usage in (chat, responses):
        body = read_reply_body(json.dumps({"usage": usage}).encode())
        assert body is not None
        assert body.usage == expected


@pytest.mark.parametrize("tokens", [-1, 2**41])
def test_a_count_that_cannot_be_is_not_counted(tokens: int) -> None:
    body = read_reply_body(json.dumps({"usage": {"prompt_tokens": tokens}}).encode())
    assert body is not None
    assert body.usage == Usage()


def test_an_error_line_is_one_line_of_json() -> None:
    line = error_line("batch_req_1", b'"a"', code="x", message='say "no"\n' * 1_000)
    read = json.loads(line)
    assert line.count(b"\n") == 1
    assert read["response"] is None
    assert read["error"]["code"] == "x"
    assert len(read["error"]["message"]) == 2_000


def test_text_that_is_not_json_is_quoted_in_an_error_body() -> None:
    read = json.loads(quoted_in_error(b"<html>\xff", 502))
    assert read["error"]["message"] == "<html>\ufffd"
    assert set(read["error"]) == {"message", "type", "param", "code"}
    assert "502" in json.loads(quoted_in_error(b"", 502))["error"]["message"]
