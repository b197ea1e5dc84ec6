"""Any range over any parts is the slice of the whole, also of a file that grows meanwhile."""

import sys
from collections.abc import Iterator
from contextlib import aclosing

import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from starlette.datastructures import Headers, QueryParams
from starlette.types import Message

from testkit.power.store_machine import run
from tidegate.api.content import content_reply
from tidegate.api.errors import RangeUnsatisfiable
from tidegate.api.responses import Reply
from tidegate.api.routing import Request
from tidegate.application import content as downloads
from tidegate.application.content import Content
from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.file import File, Part, Purpose, merged

NUMBERS = st.integers(0, 40)
# From, to and suffix, some of them beyond the end or the wrong way round.
RANGES = st.one_of(
    st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, st.none()), st.tuples(st.none(), NUMBERS)
)
Asked = tuple[int | None, int | None]


@pytest.fixture(autouse=True, scope="module")
def small_pieces() -> Iterator[None]:
    """Let a range of a few bytes be served in several pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(downloads, "CHUNK_BYTES_MAX", 3)
        yield


def content(blobs: MemoryBlobs, parts: list[Part]) -> Content:
    size = sum(part.length for part in parts)
    file = File(
        id="file-1",
        tenant="default",
        filename="a.jsonl",
        purpose=Purpose.BATCH_OUTPUT,
        bytes=size,
        created_at=0.0,
    )
    return Content(file=file, parts=tuple(parts), blobs=blobs)


async def unread() -> Message:
    raise AssertionError("a download has no body")


def a_request(asked: Asked) -> Request:
    first, last = ("" if number is None else str(number) for number in asked)
    return Request(
        method="GET",
        captured=(),
        headers=Headers({"range": f"bytes={first}-{last}"}),
        query=QueryParams(),
        principal=None,
        receive=unread,
    )


async def body_of(reply: Reply) -> bytes:
    pieces = [reply.body]
    if reply.pieces is not None:
        pieces += [piece async for piece in reply.pieces]
        assert len(pieces) > 2, "what fits one piece is no stream"
    return b"".join(pieces)


def check_range(opened: Content, whole: bytes, asked: Asked) -> None:
    """Compare one download with what the standard says of the whole."""
    first, last = asked
    try:
        reply = run(content_reply(opened, a_request(asked)))
    except RangeUnsatisfiable:
        assert not whole or last == 0 or (first is not None and first >= len(whole))
        return
    body = run(body_of(reply))
    if first is None:
        assert last is not None
        expected = whole[max(0, len(whole) - last) :]
    elif last is not None and last < first:
        assert reply.status == 200, "a malformed range is passed over"
        assert body == whole
        return
    else:
        expected = whole[first:] if last is None else whole[first : last + 1]
    assert (reply.status, body) == (206, expected)
    start = len(whole) - len(expected) if first is None else first
    end = start + len(expected) - 1
    assert reply.headers["content-range"] == f"bytes {start}-{end}/{len(whole)}"


BLOB = bytes(range(64))
PARTS = st.lists(
    st.builds(
        Part, blob=st.sampled_from("ab"), offset=st.integers(0, 40), length=st.integers(1, 20)
    ),
    max_size=8,
)


@settings(max_examples=300)
@given(parts=PARTS, asked=RANGES)
def test_any_range_over_any_parts_is_the_slice_of_the_whole(
    parts: list[Part], asked: Asked
) -> None:
    blobs = MemoryBlobs()
    whole = b""
    for name, data in (("a", BLOB), ("b", BLOB[::-1])):
        run(blobs.put(name, data))
    for part in parts:
        data = BLOB if part.blob == "a" else BLOB[::-1]
        whole += data[part.offset : part.offset + part.length]
    check_range(content(blobs, parts), whole, asked)


async def test_a_piece_is_kept_no_longer_than_until_the_next() -> None:
    blobs = MemoryBlobs()
    await blobs.put("a", BLOB)
    opened = content(blobs, [Part(blob="a", offset=0, length=len(BLOB))])
    reply = await content_reply(opened, a_request((0, None)))
    assert reply.pieces is not None
    async with aclosing(reply.pieces) as pieces:
        before = await anext(pieces)
        async for piece in pieces:
            # This name and the argument.
            assert sys.getrefcount(before) == 2
            before = piece
            del piece


class Growth(RuleBasedStateMachine):
    """A file that grows while it is read, and downloads that began earlier."""

    def __init__(self) -> None:
        super().__init__()
        self.blobs = MemoryBlobs(appends=True)
        self.parts: list[Part] = []
        self.whole = b""
        self.opened: list[tuple[Content, bytes]] = []

    @rule(blob=st.sampled_from("ab"), data=st.binary(min_size=1, max_size=8), junk=st.booleans())
    def append(self, blob: str, data: bytes, junk: bool) -> None:  # noqa: FBT001 -- Hypothesis passes by name
        """Append a slice; bytes that were never committed may lie before it."""
        if junk:
            run(self.blobs.append(blob, b"torn", after=0))
        offset = run(self.blobs.append(blob, data, after=0))
        self.parts = merged([*self.parts, Part(blob=blob, offset=offset, length=len(data))])
        self.whole += data

    @rule()
    def open(self) -> None:
        self.opened = [*self.opened[-4:], (content(self.blobs, self.parts), self.whole)]

    @rule(data=st.data(), asked=RANGES)
    def download(self, data: st.DataObject, asked: Asked) -> None:
        if self.opened:
            check_range(*data.draw(st.sampled_from(self.opened)), asked)

    @invariant()
    def a_byte_that_could_be_read_keeps_its_offset(self) -> None:
        for _, seen in self.opened:
            assert self.whole.startswith(seen)

    @invariant()
    def touching_slices_are_one(self) -> None:
        assert merged(self.parts) == self.parts
        assert sum(part.length for part in self.parts) == len(self.whole)


TestGrowth = Growth.TestCase
TestGrowth.settings = settings(max_examples=60, stateful_step_count=30)
