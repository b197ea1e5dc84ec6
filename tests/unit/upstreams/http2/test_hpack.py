"""Headers packed and unpacked: the examples of RFC 7541, and whatever a server may make of it."""

import pytest
from hypothesis import given, strategies as st

from tidegate.testing.fuzz.mutations import Edit, edited, edits
from tidegate.upstreams.http2.faults import ProtocolBroken
from tidegate.upstreams.http2.hpack import (
    INTEGER_BYTES_MAX,
    TABLE_BYTES_MAX,
    TEXTS_KEPT_MAX,
    Unpacker,
    decode_huffman,
    pack,
)
from tidegate.upstreams.http2.tables import STATIC_TABLE, huffman_codes

MUCH = 10**6
FIELDS = st.lists(
    st.tuples(
        st.sampled_from([name for name, _ in STATIC_TABLE]) | st.binary(max_size=200),
        st.binary(max_size=300),
    ),
    max_size=8,
)


def unpacked(*blocks: str) -> list[list[tuple[bytes, bytes]] | None]:
    unpacker = Unpacker()
    return [unpacker.unpack(bytes.fromhex(block), MUCH) for block in blocks]


def test_requests_with_coded_strings() -> None:
    # RFC 7541, C.4
    first = [
        (b":method", b"GET"),
        (b":scheme", b"http"),
        (b":path", b"/"),
        (b":authority", b"www.example.com"),
    ]
    assert unpacked(
        "828684418cf1e3c2e5f23a6ba0ab90f4ff",
        "828684be5886a8eb10649cbf",
        "828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf",
    ) == [
        first,
        [*first, (b"cache-control", b"no-cache")],
        [
            (b":method", b"GET"),
            (b":scheme", b"https"),
            (b":path", b"/index.html"),
            (b":authority", b"www.example.com"),
            (b"custom-key", b"custom-value"),
        ],
    ]


def test_replies_that_fill_a_small_table() -> None:
    # RFC 7541, C.5, whose table has 256 bytes: set here by an update in front of the first.
    date = b"Mon, 21 Oct 2013 20:13:21 GMT"
    where = b"https://www.example.com"
    assert unpacked(
        "3fe101"
        "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
        "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
        "4803333037c1c0bf",
        "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a697077"
        "38666f6f3d4153444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d616765"
        "3d333630303b2076657273696f6e3d31",
    ) == [
        [
            (b":status", b"302"),
            (b"cache-control", b"private"),
            (b"date", date),
            (b"location", where),
        ],
        [
            (b":status", b"307"),
            (b"cache-control", b"private"),
            (b"date", date),
            (b"location", where),
        ],
        [
            (b":status", b"200"),
            (b"cache-control", b"private"),
            (b"date", date.replace(b":21 ", b":22 ")),
            (b"location", where),
            (b"content-encoding", b"gzip"),
            (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1"),
        ],
    ]


@given(FIELDS)
def test_what_is_packed_is_unpacked(fields: list[tuple[bytes, bytes]]) -> None:
    assert Unpacker().unpack(pack(fields), MUCH) == fields


def test_keys_are_marked_as_not_to_be_kept() -> None:
    assert pack([(b"authorization", b"k")])[0] & 0xF0 == 0x10
    assert pack([(b"x-team", b"k")])[0] & 0xF0 == 0


def coded(text: bytes) -> bytes:
    codes = {symbol: bin(code)[3:] for code, symbol in huffman_codes().items()}
    bits = "".join(codes[byte] for byte in text)
    bits += "1" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


@given(st.binary(max_size=100))
def test_every_byte_has_a_code(text: bytes) -> None:
    assert decode_huffman(coded(text)) == text


@pytest.mark.parametrize(
    ("block", "word"),
    [
        ("80", "index 0"),
        ("be", "stands for none"),
        ("ffffffffffffff", "without an end"),
        ("40", "without an end"),
        ("400161", "without an end"),
        ("40036161", "without an end"),
        ("823fe101", "too late"),
        ("3fe21f", "larger than allowed"),
        ("0081ff0161", "wrong end"),  # Eight ones are no padding.
        ("0081000161", "wrong end"),  # Zeros are none, either.
        ("0084ffffffff0161", "ends within itself"),
    ],
)
def test_what_is_not_well_formed_is_refused(block: str, word: str) -> None:
    with pytest.raises(ProtocolBroken, match=word):
        Unpacker().unpack(bytes.fromhex(block), MUCH)


def test_numbers_have_a_bound() -> None:
    digits = b"\x80" * (INTEGER_BYTES_MAX - 1) + b"\x00"
    assert Unpacker().unpack(b"\x3f" + digits, MUCH) == []
    with pytest.raises(ProtocolBroken, match="without an end"):
        Unpacker().unpack(b"\x3f\x80" + digits, MUCH)


def test_the_bound_of_headers_counts_names_values_and_what_separates_them() -> None:
    fields = [(b"a", b"12345"), (b"bc", b"")]
    assert Unpacker().unpack(pack(fields), 16) == fields
    assert Unpacker().unpack(pack(fields), 15) is None


def test_headers_that_are_too_large_still_fill_the_table() -> None:
    unpacker = Unpacker()
    large = b"v" * 1000
    assert unpacker.unpack(b"\x40\x01a\x7f\xe9\x06" + large, 500) is None
    assert unpacker.unpack(b"\xbe", MUCH) == [(b"a", large)]


def test_a_small_block_can_not_stand_for_much() -> None:
    unpacker = Unpacker()
    value = b"v" * 4000
    unpacker.unpack(b"\x40\x01a\x7f\xa1\x1e" + value, MUCH)
    # Ten thousand times the same entry would be 40 MB.
    assert unpacker.unpack(b"\xbe" * 10_000, 64 * 1024) is None


def test_the_table_never_grows_past_its_bound() -> None:
    unpacker = Unpacker()
    for number in range(1000):
        unpacker.unpack(b"\x40\x04%04d\x0bhello world" % number, MUCH)
        assert unpacker._table_bytes <= TABLE_BYTES_MAX
    assert len(unpacker._table) == TABLE_BYTES_MAX // (4 + 11 + 32)
    # An entry that does not fit at all empties it.
    unpacker.unpack(b"\x40\x01a\x7f\xe1\x1e" + b"v" * 4064, MUCH)
    assert (len(unpacker._table), unpacker._table_bytes) == (0, 0)


def test_strings_that_are_remembered_are_bounded() -> None:
    unpacker = Unpacker()
    for number in range(2 * TEXTS_KEPT_MAX):
        text = coded(b"%d" % number)
        block = b"\x00\x01a" + bytes((0x80 | len(text),)) + text
        assert unpacker.unpack(block, MUCH) == [(b"a", b"%d" % number)]
        assert len(unpacker._texts) <= TEXTS_KEPT_MAX


@given(FIELDS, edits([b"\x80", b"\xff", b"\x40", b"\x3f", b"\xbe", b"\x00", b"\x81\xff"]))
def test_anything_else_is_refused_or_read(
    fields: list[tuple[bytes, bytes]], changes: list[Edit]
) -> None:
    try:
        found = Unpacker().unpack(edited(pack(fields), changes), MUCH)
    except ProtocolBroken:
        return
    assert found is not None
