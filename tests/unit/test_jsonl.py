import json
from itertools import pairwise

import pytest
from hypothesis import given, strategies as st

from tidegate.domain.batch import Problem
from tidegate.wire.jsonl import (
    CUSTOM_ID_CHARACTERS_MAX,
    MODEL_CHARACTERS_MAX,
    LineSplitter,
    oversize_problem,
    read_line,
    without_lone_surrogates,
)
from tidegate.wire.lines import Line

CHAT = "/v1/chat/completions"


def split(
    data: bytes, *, at: int = 10**9, line_bytes_max: int = 100
) -> list[tuple[int, bytes | None]]:
    splitter = LineSplitter(line_bytes_max)
    found = []
    for start in range(0, len(data), at):
        found += list(splitter.feed(data[start : start + at]))
    return found + list(splitter.finish())


MARK = b"\xef\xbb\xbf"
PIECES = st.sampled_from(
    [b"\n", b"\r\n", b"\r", b" ", b"\t", MARK[:1], MARK[1:], MARK, b"x", b"{}", b"long " * 4]
)
FILES = st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=60)


def whole_lines(data: bytes, bound: int) -> list[tuple[int, bytes | None]]:
    """Say in the plainest way what the lines of a file are."""
    found: list[tuple[int, bytes | None]] = []
    for number, piece in enumerate(data.removeprefix(MARK).split(b"\n"), start=1):
        text = piece.removesuffix(b"\r")
        if len(text) > bound:
            found.append((number, None))
        elif text.strip():
            found.append((number, text))
    return found


@given(data=FILES, places=st.lists(st.integers(0, 200), max_size=20), bound=st.integers(1, 30))
def test_any_chunking_gives_the_same_lines(data: bytes, places: list[int], bound: int) -> None:
    splitter = LineSplitter(bound)
    found: list[tuple[int, bytes | None]] = []
    edges = [0, *sorted(places), len(data)]
    for start, end in pairwise(edges):
        found += list(splitter.feed(data[start:end]))
    assert found + list(splitter.finish()) == whole_lines(data, bound)


@given(
    kinds=st.lists(st.sampled_from(["good", "bad", "blank", "large", "other"]), max_size=8),
    at=st.integers(1, 400),
)
def test_any_chunking_gives_the_same_problems(kinds: list[str], at: int) -> None:
    texts = {
        "good": line(),
        "bad": b"{",
        "blank": b" ",
        "large": b"x" * 301,
        "other": line(method="GET"),
    }
    codes = {"bad": "invalid_json_line", "large": "line_too_large", "other": "invalid_method"}
    found = [
        oversize_problem(number, 300) if raw is None else read_line(number, raw, endpoint=CHAT)
        for number, raw in split(
            b"\n".join(texts[kind] for kind in kinds), at=at, line_bytes_max=300
        )
    ]
    assert [(it.line, it.code) if isinstance(it, Problem) else it.number for it in found] == [
        (number, codes[kind]) if kind in codes else number
        for number, kind in enumerate(kinds, start=1)
        if kind != "blank"
    ]


@given(data=FILES, places=st.lists(st.integers(0, 200), max_size=20), bound=st.integers(1, 30))
def test_any_chunking_gives_the_offset_of_each_line(
    data: bytes, places: list[int], bound: int
) -> None:
    splitter = LineSplitter(bound)
    begins = [0]
    for piece in data.removeprefix(MARK).split(b"\n"):
        begins.append(begins[-1] + len(piece) + 1)
    mark = len(data) - len(data.removeprefix(MARK))
    for start, end in pairwise([0, *sorted(places), len(data)]):
        for number, _ in splitter.feed(data[start:end]):
            assert splitter.offset == mark + begins[number - 1]
    for number, _ in splitter.finish():
        assert splitter.offset == mark + begins[number - 1]


def test_lines_are_numbered_as_they_lie_in_the_file() -> None:
    data = b"\xef\xbb\xbfone\r\n\n  \r\nfour\nfive"
    assert split(data) == [(1, b"one"), (4, b"four"), (5, b"five")]


def test_a_line_at_the_bound_is_kept_and_one_beyond_is_reported() -> None:
    at, beyond = b"x" * 100, b"x" * 101
    assert split(at + b"\n" + beyond + b"\nend", at=7) == [(1, at), (2, None), (3, b"end")]
    assert split(at + b"\r\n", at=1) == [(1, at)]


def test_an_endless_line_is_never_held() -> None:
    splitter = LineSplitter(1_000)
    for _ in range(1_000):
        assert list(splitter.feed(b"x" * 1_000)) == []
        assert len(splitter._tail) <= 1_001
    assert list(splitter.finish()) == [(1, None)]


def line(**changes: object) -> bytes:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    whole = {"custom_id": "a", "method": "POST", "url": CHAT, "body": body} | changes
    return json.dumps({name: value for name, value in whole.items() if value is not ...}).encode()


def test_a_sound_line_keeps_the_bytes_of_custom_id_and_body() -> None:
    body = (
        b'{ "model" : "m","messages":[],"n":1e400, "big":1180591620717411303424 ,"e":"\\u00e9\\/"}'
    )
    raw = (
        b'{"custom_id": "\\u0061b" , "method":"POST","url":"'
        + CHAT.encode()
        + b'","body":'
        + body
        + b" }"
    )
    found = read_line(3, raw, endpoint=CHAT)
    assert isinstance(found, Line)
    assert (found.number, found.name, found.custom_id, found.model) == (3, "ab", b'"\\u0061b"', "m")
    assert found.body == body


@pytest.mark.parametrize(
    ("raw", "code", "param"),
    [
        pytest.param(b"{", "invalid_json_line", None, id="cut off"),
        pytest.param(b"[]", "invalid_json_line", None, id="not an object"),
        pytest.param(b'{"a":NaN}', "invalid_json_line", None, id="NaN"),
        pytest.param(b'{"a":"\xff"}', "invalid_json_line", None, id="not UTF-8"),
        pytest.param(b'{"a":' + b"[" * 100_000, "invalid_json_line", None, id="deep"),
        pytest.param(line(custom_id=...), "missing_required_parameter", "custom_id", id="no id"),
        pytest.param(line(custom_id=7), "invalid_type", "custom_id", id="id a number"),
        pytest.param(line(custom_id=""), "invalid_value", "custom_id", id="id empty"),
        pytest.param(
            line(custom_id="x" * (CUSTOM_ID_CHARACTERS_MAX + 1)),
            "invalid_value",
            "custom_id",
            id="id too long",
        ),
        pytest.param(line(method=...), "missing_required_parameter", "method", id="no method"),
        pytest.param(line(method="GET"), "invalid_method", "method", id="GET"),
        pytest.param(line(url=...), "missing_required_parameter", "url", id="no url"),
        pytest.param(line(url="/v1/embeddings"), "invalid_url", "url", id="another url"),
        pytest.param(line(body=...), "missing_required_parameter", "body", id="no body"),
        pytest.param(line(body="x"), "invalid_type", "body", id="body a string"),
        pytest.param(line(body={"messages": []}), "invalid_request", "body.model", id="no model"),
        pytest.param(
            line(body={"model": "", "messages": []}),
            "invalid_request",
            "body.model",
            id="empty model",
        ),
        pytest.param(
            line(body={"model": 1, "messages": []}), "invalid_type", "body.model", id="model 1"
        ),
        pytest.param(
            line(body={"model": "m"}), "invalid_request", "body.messages", id="no messages"
        ),
        pytest.param(
            line(body={"model": "m", "messages": [], "stream": True}),
            "streaming_unsupported",
            "body.stream",
            id="stream",
        ),
        pytest.param(
            line(body={"model": "m", "messages": [], "stream": 1}),
            "streaming_unsupported",
            "body.stream",
            id="stream 1",
        ),
        pytest.param(
            line(body={"model": "m\0n", "messages": []}),
            "invalid_value",
            "body.model",
            id="model with NUL",
        ),
        pytest.param(
            line(custom_id="a\ud800"), "invalid_value", "custom_id", id="lone surrogate in id"
        ),
        pytest.param(
            line(body={"model": "m\ud800", "messages": []}),
            "invalid_value",
            "custom_id",
            id="lone surrogate in model",
        ),
        pytest.param(
            b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions",'
            b'"body":{"model":"m","messages":"\xff \\ud800"}}',
            "invalid_json_line",
            None,
            id="not UTF-8 beside a lone surrogate",
        ),
        pytest.param(
            line(body={"model": "m" * (MODEL_CHARACTERS_MAX + 1), "messages": []}),
            "invalid_value",
            "body.model",
            id="model too long",
        ),
    ],
)
def test_what_is_wrong_with_a_line_is_named(raw: bytes, code: str, param: str | None) -> None:
    found = read_line(5, raw, endpoint=CHAT)
    assert isinstance(found, Problem)
    assert (found.code, found.param, found.line) == (code, param, 5)


def test_a_custom_id_at_the_bound_is_taken() -> None:
    found = read_line(1, line(custom_id="x" * CUSTOM_ID_CHARACTERS_MAX), endpoint=CHAT)
    assert isinstance(found, Line)


def test_spelling_does_not_part_equal_prompts() -> None:
    one = read_line(1, line(), endpoint=CHAT)
    other = read_line(
        2,
        b'{"body":{"messages":[ {"content":"\\u0068i","role":"user"} ],"model":"m"},'
        b'"url":"/v1/chat/completions","method":"POST","custom_id":"b"}',
        endpoint=CHAT,
    )
    assert isinstance(one, Line)
    assert isinstance(other, Line)
    assert one.prompt == other.prompt


def test_what_the_engine_renders_first_orders_first() -> None:
    def prompt(**body: object) -> bytes:
        found = read_line(1, line(body={"model": "m", "messages": [], **body}), endpoint=CHAT)
        assert isinstance(found, Line)
        return found.prompt

    tools = prompt(tools=[{"a": 1}], messages=[{"content": "z"}])
    assert prompt(messages=[{"content": "z"}]) < tools
    assert tools < prompt(tools=[{"b": 1}], messages=[{"content": "a"}])


def test_lone_surrogates_in_a_body_stay_as_they_were_written() -> None:
    messages = '[{"role":"user","content":"\\ud83d\\ude00 \\uD800 \\\\ud800 \\udc00x"}]'
    body = f'{{"model":"m", "messages":{messages}}}'.encode()
    raw = b'{"custom_id":"a","method":"POST","url":"/v1/chat/completions","body":' + body + b"}"
    found = read_line(1, raw, endpoint=CHAT)
    assert isinstance(found, Line)
    assert found.body == body
    broken = raw.replace(b'"m"', b'"m')
    assert isinstance(read_line(1, broken, endpoint=CHAT), Problem)


@given(text=st.text(alphabet='\\"abu0dDcC89fF{}\ud800\udc00x', max_size=40))
def test_only_lone_surrogates_are_replaced(text: str) -> None:
    raw = json.dumps(text).encode()
    soft = without_lone_surrogates(raw)
    assert len(soft) == len(raw)
    expected = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert json.loads(soft) == expected


def test_a_stream_that_is_off_is_no_stream() -> None:
    for off in (False, None):
        found = read_line(
            1, line(body={"model": "m", "messages": [], "stream": off}), endpoint=CHAT
        )
        assert isinstance(found, Line)
