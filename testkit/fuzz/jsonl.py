"""The scanner of batch files against the plainest reading of the same bytes."""

import json

from hypothesis import strategies as st

from testkit.fuzz.mutations import CUTS, cut, edited, edits
from testkit.fuzz.target import Target
from tidegate.application.jsonl_check import Sniffer, Verdict
from tidegate.domain.batch import Problem
from tidegate.wire.jsonl import LineSplitter, read_line
from tidegate.wire.lines import Line

CHAT = "/v1/chat/completions"
MARK = b"\xef\xbb\xbf"
LINE_BYTES_MAX = 400
TELLING = [
    b"\n", b"\r\n", b"\r", MARK, b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"NaN", b"null",
    b"1e999", b"9" * 40, b"-0", b"\\ud800", b"\\u0000", b"\xff", b"\x00", b"\xe2\x80\xa8", b"  ",
    b'"stream":true', b'"model":"m",', b"[" * 60,
]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=6,
)
BODIES = st.fixed_dictionaries(
    {"model": st.sampled_from(["m", "n"]), "messages": JSON},
    optional={"stream": st.sampled_from([False, None, True]), "x": JSON},
)
LINES = st.fixed_dictionaries(
    {"custom_id": st.text(min_size=1, max_size=6), "method": st.just("POST"), "url": st.just(CHAT)},
    optional={"body": BODIES, "extra": JSON},
)
SOUND = st.builds(
    lambda members, ascii_only: json.dumps(members, ensure_ascii=ascii_only).encode(
        "utf-8", "surrogatepass"
    ),
    LINES,
    st.booleans(),
)
FILES = st.builds(
    lambda lines, end, changes: edited(end.join(lines), changes),
    st.lists(SOUND, max_size=4),
    st.sampled_from([b"\n", b"\r\n", b"\n\n"]),
    edits(TELLING),
) | st.binary(max_size=80)
INPUTS = st.tuples(FILES, CUTS)


class _Bad(ValueError):
    pass


def _refuse(name: str) -> None:
    raise _Bad(name)


def parsed(raw: bytes) -> object:
    """Read JSON by the standard library, held to the letter of the RFC.

    Raises:
        ValueError: it is not JSON in UTF-8.
    """
    # Numbers stay text: of thousands of digits, Python would make none.
    value: object = json.loads(raw.decode(), parse_int=str, parse_float=str, parse_constant=_refuse)
    return value


def check(example: tuple[bytes, list[int]]) -> None:
    """Hold the lines of a file, and the judgement of each, to the plain reading."""
    data, places = example
    splitter = LineSplitter(LINE_BYTES_MAX)
    sniffer = Sniffer()
    found: list[tuple[int, bytes | None]] = []
    for piece in cut(data, places):
        found += splitter.feed(piece)
        sniffer.feed(piece)
    found += splitter.finish()
    assert found == _plain_lines(data)
    assert sniffer.finish() is _plain_verdict(data)
    for number, raw in found:
        if raw is not None:
            _check_line(number, raw)


def _plain_lines(data: bytes) -> list[tuple[int, bytes | None]]:
    found: list[tuple[int, bytes | None]] = []
    for number, piece in enumerate(data.removeprefix(MARK).split(b"\n"), start=1):
        text = piece.removesuffix(b"\r")
        if len(text) > LINE_BYTES_MAX:
            found.append((number, None))
        elif text.strip():
            found.append((number, text))
    return found


def _plain_verdict(data: bytes) -> Verdict:
    text = data.removeprefix(MARK).lstrip(b" \t\r\n")
    try:
        value = parsed(text.partition(b"\n")[0])
    except (ValueError, RecursionError):
        return Verdict.BAD
    return Verdict.GOOD if isinstance(value, dict) else Verdict.BAD


def _check_line(number: int, raw: bytes) -> None:
    judged = read_line(number, raw, endpoint=CHAT)
    try:
        value = parsed(raw)
    except (ValueError, RecursionError):
        value = None
    if isinstance(judged, Problem):
        assert judged.line == number
        assert judged.message
        assert not _is_sound(value), f"refused without need: {judged.message}"
        return
    assert isinstance(value, dict), "taken, but no JSON object"
    _check_sound(judged, value, raw)


def _check_sound(line: Line, value: dict[str, object], raw: bytes) -> None:
    body = parsed(line.body)
    assert line.body in raw
    assert line.custom_id in raw
    assert isinstance(body, dict)
    assert body == value["body"]
    assert parsed(line.custom_id) == value["custom_id"] == line.name
    assert line.model == body["model"]
    assert (value["method"], value["url"]) == ("POST", CHAT)
    assert body.get("stream") in {False, None}


def _is_sound(value: object) -> bool:
    """Return whether a line is entirely valid, without doubtful text."""
    if not isinstance(value, dict):
        return False
    body = value.get("body")
    name = value.get("custom_id")
    return (
        isinstance(name, str)
        and bool(name)
        and (value.get("method"), value.get("url")) == ("POST", CHAT)
        and isinstance(body, dict)
        and body.get("model") in {"m", "n"}
        and "messages" in body
        and body.get("stream") in {False, None}
        # Only the texts of a body may hold lone surrogates, and none may stand before it.
        and not any("\ud800" <= letter <= "\udfff" for letter in name)
        and not any("\ud800" <= letter <= "\udfff" for letter in repr(list(value)))
    )


TARGET = Target(name="jsonl", inputs=INPUTS, check=check)
