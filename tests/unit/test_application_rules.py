"""The rules of the application at their bounds: windows, metadata, expiry, settings, sniffing."""

import pytest
from hypothesis import given, strategies as st

from tidegate.application import jsonl_check as sniff
from tidegate.application.jsonl_check import Sniffer, Verdict
from tidegate.application.rules import (
    ECHO_CHARACTERS_MAX,
    check_metadata,
    could_be_id,
    echo,
    expiry_seconds,
    window_seconds,
)
from tidegate.application.settings import Settings
from tidegate.domain.errors import Refused, SettingsInvalid
from tidegate.wire.batch_request import ExpiresAfter


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("24h", 86_400),
        ("1m", 60),
        ("60s", 60),
        ("90s", 90),
        ("30m", 1_800),
        ("1h30m", 5_400),
        ("7d", 604_800),
        ("14d", 1_209_600),
        ("1d2h3m4s", 93_784),
        ("336h", 1_209_600),
    ],
)
def test_a_window_is_a_duration(text: str, seconds: int) -> None:
    assert window_seconds(text, Settings()) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "59s",
        "0m",
        "14d1s",
        "337h",
        "1",
        "h",
        "1 h",
        "24H",
        "-1h",
        "1.5h",
        "1m1h",
        "24h\n",
        "٣h",
        "9" * 40 + "h",
    ],
)
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(Refused, match=r"completion_window must be '24h'.*from 1m to 14d") as caught:
        window_seconds(text, Settings())
    assert caught.value.param == "completion_window"
    assert caught.value.code == "invalid_value"


def test_the_bounds_of_a_window_are_settings() -> None:
    settings = Settings(window_seconds_min=10, window_seconds_max=5_400)
    assert window_seconds("10s", settings) == 10
    assert window_seconds("90m", settings) == 5_400
    for text in ("9s", "91m", "24h"):
        with pytest.raises(Refused, match="from 10s to 90m"):
            window_seconds(text, settings)


def test_metadata_at_its_bounds() -> None:
    check_metadata({})
    check_metadata({f"{number:064d}": "é" * 512 for number in range(16)})


@pytest.mark.parametrize(
    ("metadata", "param", "code"),
    [
        ({str(n): "" for n in range(17)}, "metadata", "object_above_max_properties"),
        ({"k" * 65: ""}, "metadata", "string_above_max_length"),
        ({"k": "v" * 513}, "metadata.k", "string_above_max_length"),
        ({"k": "a\0b"}, "metadata.k", "invalid_value"),
        ({"a\0b": "v"}, "metadata", "string_above_max_length"),
    ],
)
def test_metadata_beyond_its_bounds(metadata: dict[str, str], param: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        check_metadata(metadata)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize("seconds", [3_600, 2_592_000])
def test_an_expiry_at_its_bounds(seconds: int) -> None:
    assert expiry_seconds("x", ExpiresAfter(anchor="created_at", seconds=seconds)) == seconds


@pytest.mark.parametrize(
    ("expiry", "param", "code"),
    [
        (ExpiresAfter(anchor="created_at", seconds=3_599), "x.seconds", "integer_below_min_value"),
        (
            ExpiresAfter(anchor="created_at", seconds=2_592_001),
            "x.seconds",
            "integer_above_max_value",
        ),
        (
            ExpiresAfter(anchor="created_at", seconds=10**5_000),
            "x.seconds",
            "integer_above_max_value",
        ),
        (ExpiresAfter(anchor="now", seconds=3_600), "x.anchor", "invalid_value"),
    ],
)
def test_an_expiry_beyond_its_bounds(expiry: ExpiresAfter, param: str, code: str) -> None:
    with pytest.raises(Refused) as caught:
        expiry_seconds("x", expiry)
    assert (caught.value.param, caught.value.code) == (param, code)


@pytest.mark.parametrize(
    "wrong",
    [
        {"extra_endpoints": ("v1/rerank",)},
        {"extra_endpoints": ("/v1/",)},
        {"file_bytes_max": 0},
        {"other_file_bytes_max": 0},
        {"batch_file_expiry_seconds": 0},
        {"output_expiry_seconds": 0},
        {"window_seconds_min": 0},
        {"window_seconds_min": 61, "window_seconds_max": 60},
    ],
)
def test_wrong_settings_name_themselves(wrong: dict[str, int | tuple[str, ...]]) -> None:
    with pytest.raises(SettingsInvalid, match=f"batch_api.{next(iter(wrong))}"):
        Settings(**wrong)  # type: ignore[arg-type]  # one dictionary for fields of several types


def test_extra_endpoints_come_last_and_once() -> None:
    settings = Settings(extra_endpoints=("/v1/rerank", "/v1/embeddings", "/v1/audio/speech"))
    assert settings.endpoints == (
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/embeddings",
        "/v1/responses",
        "/v1/rerank",
        "/v1/audio/speech",
    )


def test_a_message_repeats_only_what_is_fit_to_be_read() -> None:
    assert echo("a\0\r\nb") == "a\ufffd\ufffd\ufffdb"
    assert echo("x" * ECHO_CHARACTERS_MAX) == "x" * ECHO_CHARACTERS_MAX
    assert echo("x" * (ECHO_CHARACTERS_MAX + 1)) == "x" * ECHO_CHARACTERS_MAX + "…"


@pytest.mark.parametrize(
    ("text", "known"),
    [("file-1", True), ("a" * 128, True), ("a" * 129, False), ("", False), ("a b", False)],
)
def test_ids_that_were_never_issued_are_recognised(text: str, *, known: bool) -> None:
    assert could_be_id(text) is known


SNIFFED = [
    (b"", Verdict.BAD),
    (b" \r\n\t\n", Verdict.BAD),
    (b"{}", Verdict.GOOD),
    (b"{}\n", Verdict.GOOD),
    (b'\xef\xbb\xbf{"a":1}\r\n{', Verdict.GOOD),
    (b"\xef\xbb\xbf", Verdict.BAD),
    (b"\xef\xbb", Verdict.BAD),
    (b"\n\xef\xbb\xbf{}", Verdict.BAD),
    (b'{"a":"\xff"}\n', Verdict.BAD),
    (b"\r\n \n{}\nrubbish", Verdict.GOOD),
    (b"malformed\n{}", Verdict.BAD),
    (b"[1]\n", Verdict.BAD),
    (b'"{}"\n', Verdict.BAD),
    (b'{\n "a": 1\n}\n', Verdict.BAD),
    (b"{} {}\n", Verdict.BAD),
    (b"\x89PNG\r\n", Verdict.BAD),
    (b'{"a":' + b"[" * 5_000 + b"]" * 5_000 + b"}\n", Verdict.BAD),
]


@pytest.mark.parametrize(("data", "verdict"), SNIFFED)
@pytest.mark.parametrize("size", [1, 2, 7, 100_000])
def test_the_first_line_decides_however_it_is_cut(data: bytes, verdict: Verdict, size: int) -> None:
    sniffer = Sniffer()
    for start in range(0, len(data), size):
        sniffer.feed(data[start : start + size])
    assert sniffer.finish() is verdict


@given(st.lists(st.sampled_from([b"\n", b"{}", b"\xef\xbb\xbf", b" ", b"x", b"\r"]), max_size=8))
def test_any_cut_gives_the_same_verdict(pieces: list[bytes]) -> None:
    whole, cut = Sniffer(), Sniffer()
    whole.feed(b"".join(pieces))
    for piece in pieces:
        cut.feed(piece)
    assert whole.finish() is cut.finish()


@pytest.mark.parametrize(
    ("begin", "extra", "verdict"),
    [
        (b"{", 0, Verdict.BAD),  # As long as we look: it is read, and is no JSON.
        (b"{", 1, Verdict.GOOD),  # Longer: the validation will judge it.
        (b"x", 1, Verdict.BAD),
    ],
)
@pytest.mark.parametrize("size", [65_536, 10_000_000])
def test_a_long_first_line_is_judged_by_its_begin(
    monkeypatch: pytest.MonkeyPatch, begin: bytes, extra: int, verdict: Verdict, size: int
) -> None:
    monkeypatch.setattr(sniff, "SNIFF_BYTES_MAX", 200_000)
    line = begin + b"a" * (200_000 - 1 + extra)
    sniffer = Sniffer()
    for start in range(0, len(line), size):
        sniffer.feed(line[start : start + size])
    sniffer.feed(b"\nmore")
    assert sniffer.finish() is verdict
    assert len(sniffer._line) == 0
