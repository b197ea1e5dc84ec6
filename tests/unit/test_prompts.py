import json
from zlib import crc32

import pytest
from hypothesis import given, strategies as st

from tidegate.domain.batch import Problem
from tidegate.wire import jsonl, prompts
from tidegate.wire.jsonl import read_line
from tidegate.wire.lines import Line, Message

CHAT = "/v1/chat/completions"
PLAIN, BLOCK, MOST = prompts.PLAIN_BYTES, prompts.BLOCK_BYTES, prompts.PROMPT_BYTES_MAX


def line(body: object, **members: object) -> bytes:
    whole = {"custom_id": "a", "method": "POST", "url": CHAT, "body": body} | members
    return json.dumps(whole).encode()


def chat(*contents: object, **members: object) -> dict[str, object]:
    messages = [{"role": "user", "content": content} for content in contents]
    return {"model": "m", "messages": messages, **members}


def key_of(body: object) -> bytes:
    found = read_line(1, line(body), endpoint=CHAT)
    assert isinstance(found, Line)
    return found.prompt


# Keys


@pytest.mark.parametrize("size", [0, 1, PLAIN - 1, PLAIN])
def test_a_short_prompt_is_its_own_key(size: int) -> None:
    text = b"x" * size
    assert prompts.sort_key(text) == text
    assert prompts.prompt_bytes_covered(size) == size


def test_a_digest_stands_for_each_block_beyond() -> None:
    text = bytes(range(1, 201)) * 100
    key = prompts.sort_key(text[: PLAIN + BLOCK + 1])
    assert key[:PLAIN] == text[:PLAIN]
    blocks = [text[PLAIN : PLAIN + BLOCK], text[PLAIN + BLOCK : PLAIN + BLOCK + 1]]
    assert key[PLAIN:] == b"".join(b"%08x" % crc32(block) for block in blocks)
    assert prompts.prompt_bytes_covered(PLAIN + 8) == PLAIN + BLOCK
    assert prompts.prompt_bytes_covered(PLAIN + 7) == PLAIN


def test_what_lies_behind_the_bound_does_not_order() -> None:
    text = b"x" * MOST
    assert prompts.sort_key(text) == prompts.sort_key(text + b"y")
    assert prompts.sort_key(text) != prompts.sort_key(text[:-1] + b"y")
    assert prompts.prompt_bytes_covered(len(prompts.sort_key(text))) == MOST


@given(parts=st.lists(st.binary(max_size=3_000), max_size=3))
def test_a_key_holds_no_nul(parts: list[bytes]) -> None:
    assert b"\0" not in prompts.sort_key(*parts)


def test_those_who_share_more_blocks_are_nearer() -> None:
    start = "s" * (PLAIN + 100)
    one, two = "a" * 3 * BLOCK, "b" * 3 * BLOCK
    bodies = [chat(start + one + "1"), chat(start + two + "1"), chat(start + one + "2")]
    keys = sorted((key_of(body), place) for place, body in enumerate(bodies))
    order = [place for _, place in keys]
    assert abs(order.index(0) - order.index(2)) == 1


# Spelling


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"content":"\\u0068i","role":"user"}', '{ "role" : "user", "content" : "hi" }'),
        ('{"role":"user","content":null,"x":{"b":1,"a":2}}', '{"x":{"a":2,"b":1},"role":"user"}'),
    ],
)
def test_equal_messages_have_equal_keys(one: str, other: str) -> None:
    keys = [
        prompts.canonical_raw_messages(f"[{text}]".encode()).replace(b'"content":null,', b"")
        for text in (one, other)
    ]
    assert keys[0] == keys[1]


def test_any_other_field_of_a_message_distinguishes_it() -> None:
    plain: Message = {"role": "user", "content": "x"}
    others: list[Message] = [
        plain,
        plain | {"name": "a"},
        plain | {"name": "b"},
        {"role": "user", "name": "a"},
    ]
    assert len({prompts.canonical_messages([message]) for message in others}) == len(others)


def test_messages_beyond_the_bound_are_not_spelled() -> None:
    long: dict[str, object] = {"role": "user", "content": "x" * MOST}
    assert prompts.canonical_messages([long, long]) == prompts.canonical_messages([long])


@pytest.mark.parametrize("raw", [b"7", b'"text"', b"[1,2]", b'[{"a":1e400}]', b"[" * 2_000])
def test_messages_of_any_shape_are_spelled_somehow(raw: bytes) -> None:
    assert prompts.canonical_raw_messages(raw)


def test_what_is_too_long_stays_as_it_is_written() -> None:
    raw = b'"\\u0061' + b"x" * (MOST - 8) + b'"'
    assert len(raw) == MOST
    assert prompts.canonical_raw(raw).startswith(b"ax")
    assert prompts.canonical_raw(raw[:-1] + b'x"').startswith(b'"\\u0061')


# The quick reading against the careful one

TEXTS = st.text(alphabet='ab"\\/\x00\x1f é\u2028😀', max_size=8)
CONTENTS = TEXTS | st.none() | st.integers() | st.lists(st.dictionaries(TEXTS, TEXTS), max_size=2)
MESSAGES = st.lists(
    st.fixed_dictionaries({}, optional={"role": TEXTS, "content": CONTENTS, "name": TEXTS}),
    max_size=3,
)
BODIES = st.fixed_dictionaries(
    {"model": TEXTS},
    optional={
        "messages": MESSAGES | CONTENTS,
        "stream": st.sampled_from([False, True, None, 0]),
        "tools": CONTENTS,
        "instructions": CONTENTS,
        "prompt": CONTENTS,
        "input": CONTENTS,
    },
)


@given(
    members=st.fixed_dictionaries(
        {
            "custom_id": TEXTS,
            "method": st.sampled_from(["POST", "GET"]),
            "url": st.sampled_from([CHAT, "/v1/embeddings"]),
            "body": BODIES,
        },
        optional={"x": CONTENTS},
    ),
    endpoint=st.sampled_from([CHAT, "/v1/embeddings"]),
    ascii_only=st.booleans(),
    indent=st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", "\r: ")]),
)
def test_a_line_of_the_usual_form_is_read_as_any_other(
    members: dict[str, object], endpoint: str, *, ascii_only: bool, indent: tuple[str, str]
) -> None:
    raw = json.dumps(members, ensure_ascii=ascii_only, separators=indent).encode()
    quick = jsonl._read_plain(1, raw, endpoint)
    found = read_line(1, raw, endpoint=endpoint)
    try:
        careful: Line | Problem = jsonl._read(1, raw, endpoint)
    except jsonl._InvalidLine:
        assert quick is None
        assert isinstance(found, Problem)
        return
    assert found == careful
    assert quick in {None, careful}


def test_a_usual_line_is_read_quickly() -> None:
    raw = line(chat("hé", stream=False, tools=[{"a": 1}]))
    assert jsonl._read_plain(1, raw, CHAT) == jsonl._read(1, raw, CHAT)


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(line(chat("x")) + b" ", id="a blank at the end"),
        pytest.param(line(chat("x"), custom_id="\u00e9"), id="an escape in the custom_id"),
        pytest.param(line(chat("x")).replace(b'"body"', b'"x":1,"body"'), id="more members"),
        pytest.param(line(chat("x"), x=1), id="a member behind the body"),
        pytest.param(line(chat("x") | {"model": "m\u2028"}), id="an odd model"),
        pytest.param(line(chat("x", stream=True)), id="a stream"),
        pytest.param(line(chat("x"))[:-1], id="cut off"),
        pytest.param(line(chat("x")) + b"}", id="one brace too many"),
    ],
)
def test_any_other_line_takes_a_closer_look(raw: bytes) -> None:
    assert jsonl._read_plain(1, raw, CHAT) is None
