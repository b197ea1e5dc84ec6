"""The end of a reply is exact at each bound, and the same for any split of its bytes."""

from itertools import pairwise

import httptools
import pytest
from hypothesis import given, strategies as st

from tidegate.domain.errors import ReplyBroken, ReplyTooLarge
from tidegate.upstreams.http1.framing import Head, HeadReader, body_for
from tidegate.upstreams.settings import Limits

LIMITS = Limits(
    header_bytes_max=256, header_count_max=4, body_bytes_max=64, chunk_extension_bytes_max=32
)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at these places, wherever they lie; no piece is empty."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[low:high] for low, high in pairwise(edges)]


def read(pieces: list[bytes], method: str = "POST", limits: Limits = LIMITS) -> str:
    """Read one final reply and describe what became of it; no bytes may follow it."""
    reader, head, body = HeadReader(limits), None, None
    try:
        for piece in pieces:
            data = piece
            if head is None:
                step = reader.feed(data)
                if step is None:
                    continue
                head, data = step
                body = body_for(head, method, limits)
            assert body is not None
            extra = body.feed(data) if data else 0
            if body.done and extra:
                return f"{head.status} {body.content()!r} and more"
        if head is None or body is None:
            return "unfinished head"
        whole = "whole" if body.done or body.ends_at_close else "unfinished"
        return f"{head.status} {head.headers} {body.content()!r} {whole}"
    except (ReplyBroken, ReplyTooLarge) as fault:
        return f"{type(fault).__name__}: {fault}"


def chunked(*pieces: bytes, extension: bytes = b"", trailers: bytes = b"") -> bytes:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    body = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return head + body + b"0\r\n" + trailers + b"\r\n"


def sized(body: bytes, *headers: bytes) -> bytes:
    rows = [b"HTTP/1.1 200 OK", b"content-length: %d" % len(body), *headers, b"", b""]
    return b"\r\n".join(rows) + body


HOSTILE = {
    "sized": sized(b"hello"),
    "empty": sized(b""),
    "open-ended": b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    "chunked": chunked(b"hello", b" ", b"world" * 5),
    "chunked with extensions at the bound": chunked(b"a" * 20, extension=b";" + b"e" * 31),
    "chunked with extensions beyond the bound": chunked(b"a" * 20, extension=b";" + b"e" * 32),
    "many small extensions beyond the bound": chunked(*[b"a"] * 17, extension=b";x"),
    "trailers at the bound": chunked(b"a", trailers=b"x: %b\r\n" % (b"t" * 27)),
    "trailers beyond the bound": chunked(b"a", trailers=b"x: %b\r\n" % (b"t" * 28)),
    "a broken trailer": chunked(b"a", trailers=b"no colon\r\n"),
    "body at the bound": sized(b"b" * 64),
    "body beyond the bound": sized(b"b" * 65),
    "chunks at the bound": chunked(b"b" * 32, b"b" * 32),
    "chunks beyond the bound": chunked(b"b" * 32, b"b" * 33),
    "open body at the bound": b"HTTP/1.1 200 OK\r\n\r\n" + b"b" * 64,
    "open body beyond the bound": b"HTTP/1.1 200 OK\r\n\r\n" + b"b" * 65,
    "a chunk longer than it said": chunked()[:-5] + b"2\r\nabc\r\n0\r\n\r\n",
    "a chunk size that is none": chunked()[:-5] + b"xyz\r\n",
    "a negative chunk size": chunked()[:-5] + b"-1\r\nab",
    "a chunk size with a sign": chunked()[:-5] + b"+1\r\na\r\n0\r\n\r\n",
    "a chunk size of 17 digits": chunked()[:-5] + b"0" * 16 + b"1\r\na\r\n0\r\n\r\n",
    "a chunk size beyond 64 bits": chunked()[:-5] + b"f" * 16 + b"\r\n",
    "a chunk line ended by a bare line feed": chunked()[:-5] + b"1\na\r\n0\r\n\r\n",
    "a carriage return within a chunk line": chunked()[:-5] + b"1;\rx\r\na\r\n0\r\n\r\n",
    "a chunk line without end": chunked()[:-5] + b"1;" + b"e" * 100,
    "a truncated body": sized(b"hello")[:-1],
    "truncated chunks": chunked(b"hello")[:-1],
    "a truncated head": sized(b"hello")[:30],
    "headers at the bound": sized(b"x", b"a: " + b"v" * (256 - 43)),
    "headers beyond the bound": sized(b"x", b"a: " + b"v" * (257 - 43)),
    "as many headers as allowed": sized(b"x", b"a: 1", b"b: 2", b"c: 3"),
    "too many headers": sized(b"x", b"a: 1", b"b: 2", b"c: 3", b"d: 4"),
    "too many headers, then nonsense": sized(
        b"x", b"a: 1", b"b: 2", b"c: 3", b"d: 4", b"e: 5", b"\x00"
    ),
    "nonsense, then too many headers": sized(b"x", b"\x00", b"b: 2", b"c: 3", b"d: 4", b"e: 5"),
    "an endless header": b"HTTP/1.1 200 OK\r\na: " + b"v" * 1000,
    "a large head that is broken late": b"HTTP/1.1 200 OK\r\na: " + b"v" * 1000 + b"\x00\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
    "blank lines first": b"\r\n\r\n" + sized(b"x"),
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"HTTP/0.9 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\n\r\n",
    "a status of two digits": b"HTTP/1.1 99 Low\r\n\r\n",
    "a status of 600": b"HTTP/1.1 600 High\r\n\r\n",
    "a status in words": b"HTTP/1.1 OK\r\n\r\n",
    "both lengths": sized(b"x", b"transfer-encoding: chunked"),
    "two lengths": sized(b"x", b"content-length: 1"),
    "two different lengths": sized(b"x", b"content-length: 2"),
    "a signed length": b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\nx",
    "an empty length": b"HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\nx",
    "a length in words": b"HTTP/1.1 200 OK\r\ncontent-length: one\r\n\r\nx",
    "a list of lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\nx",
    "a length beyond 64 bits": b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\nx",
    "a space before the colon": b"HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\nx",
    "a folded header": b"HTTP/1.1 200 OK\r\na: 1\r\n 2\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\na: 1\n\n",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\na: \x00\r\n\r\n",
    "gzip framing": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n"
    b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "almost chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n",
    "gzip": sized(b"x", b"content-encoding: gzip"),
    "identity": sized(b"x", b"content-encoding: Identity"),
    "a length with blanks behind it": b"HTTP/1.1 200 OK\r\ncontent-length: 1 \t\r\n\r\nx",
    "blanks around a value": sized(b"x", b"retry-after:  7 "),
    "an upgrade": b"HTTP/1.1 101 Switch\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\nraw",
}

FINE = {
    "sized": "200 {'content-length': '5'} b'hello' whole",
    "empty": "200 {'content-length': '0'} b'' whole",
    "open-ended": "200 {} b'until the end' whole",
    "chunked": f"200 {{'transfer-encoding': 'chunked'}} {b'hello ' + b'world' * 5!r} whole",
    "chunked with extensions at the bound":
        f"200 {{'transfer-encoding': 'chunked'}} {b'a' * 20!r} whole",
    "trailers at the bound": "200 {'transfer-encoding': 'chunked'} b'a' whole",
    "body at the bound": f"200 {{'content-length': '64'}} {b'b' * 64!r} whole",
    "chunks at the bound": f"200 {{'transfer-encoding': 'chunked'}} {b'b' * 64!r} whole",
    "open body at the bound": f"200 {{}} {b'b' * 64!r} whole",
    "headers at the bound": f"200 {{'content-length': '1', 'a': '{'v' * 213}'}} b'x' whole",
    "as many headers as allowed":
        "200 {'content-length': '1', 'a': '1', 'b': '2', 'c': '3'} b'x' whole",
    "identity": "200 {'content-length': '1', 'content-encoding': 'Identity'} b'x' whole",
    "a length with blanks behind it": "200 {'content-length': '1'} b'x' whole",
    "blanks around a value": "200 {'content-length': '1', 'retry-after': '7'} b'x' whole",
    "a truncated body": "200 {'content-length': '5'} b'hell' unfinished",
    "truncated chunks": "200 {'transfer-encoding': 'chunked'} b'hello' unfinished",
    "a truncated head": "unfinished head",
}  # fmt: skip

TOO_LARGE = {
    "chunked with extensions beyond the bound": "chunk_extension_bytes_max",
    "many small extensions beyond the bound": "chunk_extension_bytes_max",
    "trailers beyond the bound": "chunk_extension_bytes_max",
    "a chunk line without end": "chunk_extension_bytes_max",
    "body beyond the bound": "body_bytes_max",
    "chunks beyond the bound": "body_bytes_max",
    "open body beyond the bound": "body_bytes_max",
    "a chunk size beyond 64 bits": "body_bytes_max",
    "headers beyond the bound": "header_bytes_max",
    "an endless header": "header_bytes_max",
    "a large head that is broken late": "header_bytes_max",
    "too many headers": "header_count_max",
    "too many headers, then nonsense": "header_count_max",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_reply_has_its_fate(name: str) -> None:
    fate = read([HOSTILE[name]])
    if name in FINE:
        assert fate == FINE[name]
    elif name in TOO_LARGE:
        assert fate.startswith("ReplyTooLarge")
        assert TOO_LARGE[name] in fate
    else:
        assert fate.startswith("ReplyBroken")
    assert fate.endswith((".", "whole", "unfinished", "head"))


@given(name=st.sampled_from(sorted(HOSTILE)), places=st.lists(st.integers(0, 2000), max_size=30))
def test_the_fate_does_not_depend_on_how_the_bytes_are_cut(name: str, places: list[int]) -> None:
    data = HOSTILE[name]
    assert read(cut(data, places)) == read([data])


@pytest.mark.parametrize("name", HOSTILE)
def test_the_fate_is_the_same_byte_by_byte(name: str) -> None:
    data = HOSTILE[name]
    assert read([data[index : index + 1] for index in range(len(data))]) == read([data])


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("POST", 204), ("GET", 304)])
@pytest.mark.parametrize("row", [b"content-length: 99", b"transfer-encoding: chunked", b"a: 1"])
def test_some_replies_never_have_a_body(method: str, status: int, row: bytes) -> None:
    data = b"HTTP/1.1 %d Fine\r\n%b\r\n\r\n" % (status, row)
    fate = read([data], method)
    assert fate.startswith(f"{status} ")
    assert fate.endswith(" b'' whole")
    assert read([data + b"x"], method) == f"{status} b'' and more"


class Oracle:
    """Collects what llhttp itself makes of a body."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


@given(
    pieces=st.lists(st.binary(min_size=1, max_size=12), max_size=5),
    extension=st.sampled_from([b"", b";a", b";a=b", b';a="b"']),
    trailers=st.sampled_from([b"", b"a: b\r\n", b"a: b\r\nc:\r\n"]),
    places=st.lists(st.integers(0, 500), max_size=20),
)
def test_chunks_are_read_as_the_parser_reads_them(
    pieces: list[bytes], extension: bytes, trailers: bytes, places: list[int]
) -> None:
    data = chunked(*pieces, extension=extension, trailers=trailers)
    oracle = Oracle()
    httptools.HttpResponseParser(oracle).feed_data(data)
    assert oracle.complete
    fate = read(cut(data, places), limits=Limits())
    assert fate == f"200 {{'transfer-encoding': 'chunked'}} {oracle.body!r} whole"


@given(noise=st.binary(max_size=40), places=st.lists(st.integers(0, 500), max_size=10))
def test_what_the_parser_refuses_in_chunks_is_never_taken(noise: bytes, places: list[int]) -> None:
    data = chunked()[:-5] + noise
    fate = read(cut(data, places))
    oracle = Oracle()
    try:
        httptools.HttpResponseParser(oracle).feed_data(data)
    except httptools.HttpParserError:
        # It may have been whole before the bytes that broke it.
        assert oracle.complete or not fate.endswith(" whole")
    else:
        assert not fate.endswith(" whole") or oracle.complete


def test_a_repeated_header_counts_by_its_last() -> None:
    assert "{'content-length': '1', 'a': '2'}" in read([sized(b"x", b"A: 1", b"a: 2")])


@pytest.mark.parametrize(
    ("version", "row", "keeps"),
    [
        (b"HTTP/1.1", b"a: 1", True),
        (b"HTTP/1.1", b"connection: close", False),
        (b"HTTP/1.1", b"Connection: Keep-Alive, Close", False),
        (b"HTTP/1.0", b"a: 1", False),
        (b"HTTP/1.0", b"connection: keep-alive", False),
    ],
)
def test_who_keeps_the_connection(version: bytes, row: bytes, *, keeps: bool) -> None:
    reader = HeadReader(LIMITS)
    step = reader.feed(version + b" 200 OK\r\ncontent-length: 0\r\n" + row + b"\r\n\r\nrest")
    assert step is not None
    head, rest = step
    assert isinstance(head, Head)
    assert (head.keeps_alive, rest) == (keeps, b"rest")
