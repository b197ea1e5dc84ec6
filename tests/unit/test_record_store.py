"""Records that are read again from the input, against records that were written to scratch."""

import io
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from itertools import pairwise

import pytest
from hypothesis import example, given, strategies as st
from typing_extensions import override

from tidegate.blobs.memory import MemoryBlobs
from tidegate.domain.errors import BlobMissing
from tidegate.domain.file import Part
from tidegate.planning import record_store
from tidegate.planning.cut_shards import ShardSlice, cut_shards
from tidegate.planning.input_file import READ_BYTES, InputFile
from tidegate.planning.problems import FirstProblems
from tidegate.planning.record_store import GAP_BYTES_MAX, READ_BYTES_MAX
from tidegate.planning.settings import Planning
from tidegate.planning.validate import InputValidation

CHAT = "/v1/chat/completions"
TEXTS = st.sampled_from(["", "é", '"a"', "\n", "\ud800", "custom_id", "a" * 40, "x" * 1_500])
MEMBERS = st.permutations(["custom_id", "method", "url", "body", "note"])


class Noting(MemoryBlobs):
    """Notes what is read of blobs by ranges."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[int, int]] = []

    @override
    async def read_ranges(self, name: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        self.ranges += ranges
        return await super().read_ranges(name, ranges)


async def stored(data: bytes, edges: Sequence[int] = ()) -> InputFile:
    """Return a file that is cut at these edges into parts, each in the middle of another blob."""
    blobs = MemoryBlobs()
    parts = []
    for number, (start, end) in enumerate(pairwise([0, *sorted(edges), len(data)])):
        if start < end <= len(data):
            await blobs.put(f"part-{number}", b"junk" + data[start:end] + b"junk")
            parts.append(Part(blob=f"part-{number}", offset=4, length=end - start))
    return InputFile(blobs, parts)


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def planned(
    data: bytes, source: InputFile | None, settings: Planning | None = None
) -> list[ShardSlice]:
    settings = settings or Planning(shard_lines_max=3, run_lines_max=2)
    problems = FirstProblems(10)
    with ExitStack() as stack:
        validation = InputValidation(
            settings, io.BytesIO, stack, endpoint=CHAT, problems=problems, source=source
        )
        await validation.read(once(data) if source is None else source.pieces())
        assert await validation.check_file() is None
        assert problems.listed() == []
        return [piece async for piece in cut_shards(validation, settings)]


def request(number: int, text: str, order: Sequence[str], note: str, *, spaced: bool) -> bytes:
    members: dict[str, object] = {
        "custom_id": f"id-{number}",
        "method": "POST",
        "url": CHAT,
        "body": {"model": "m", "messages": [{"role": "user", "content": text}]},
        "note": note,
    }
    line = {name: members[name] for name in order if name != "note" or note}
    return json.dumps(line, separators=(" , ", " : ") if spaced else (",", ":")).encode()


@given(
    lines=st.lists(st.tuples(TEXTS, MEMBERS, TEXTS, st.booleans()), min_size=1, max_size=12),
    edges=st.lists(st.integers(1, 5_000), max_size=3),
    start=st.sampled_from([b"", b"\xef\xbb\xbf", b"\n \r\n"]),
    end=st.sampled_from([b"\n", b"\r\n", b" \n\n"]),
)
@example(lines=[("x", ["note", "body", "custom_id", "method", "url"], "", True)] * 2, edges=[],
         start=b"", end=b"\n")  # fmt: skip
async def test_a_plan_is_the_same_from_scratch_and_from_the_input(
    lines: list[tuple[str, list[str], str, bool]], edges: list[int], start: bytes, end: bytes
) -> None:
    data = start + b"".join(
        request(number, text, order, note, spaced=spaced) + end
        for number, (text, order, note, spaced) in enumerate(lines)
    )
    source = await stored(data, [edge for edge in edges if edge < len(data)])
    assert await planned(data, source) == await planned(data, None)


def gapped(number: int, gap: int) -> bytes:
    """Return a line with this many bytes between its custom_id and its body."""
    between = f'","method":"POST","url":"{CHAT}","note":"%b","body":'.encode()
    note = b"-" * (gap - len(between % b"") + 1)
    body = b'{"model":"m","messages":[{"role":"user","content":"%d"}]}' % number
    return b'{"custom_id":"%d%b%b}' % (number, between % note, body)


@pytest.mark.parametrize(("beyond", "reads"), [(0, 1), (1, 2)])
async def test_what_lies_between_is_read_too_up_to_a_bound(beyond: int, reads: int) -> None:
    blobs = Noting()
    data = gapped(7, GAP_BYTES_MAX + beyond)
    await blobs.put("blob", data)
    source = InputFile(blobs, [Part(blob="blob", offset=0, length=len(data))])
    assert await planned(data, source) == await planned(data, None)
    assert len(blobs.ranges) == reads
    assert sum(length for _, length in blobs.ranges) >= len(data) - GAP_BYTES_MAX - 100


async def test_neighbours_are_read_at_once_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [gapped(number, 200) for number in range(3)]
    data = b"\n".join(lines)
    settings = Planning()

    async def ranges() -> list[tuple[int, int]]:
        blobs = Noting()
        await blobs.put("blob", data)
        source = InputFile(blobs, [Part(blob="blob", offset=0, length=len(data))])
        assert await planned(data, source, settings) == await planned(data, None, settings)
        return blobs.ranges

    start = len(b'{"custom_id":')
    assert await ranges() == [(start, len(data) - 1 - start)]
    monkeypatch.setattr(record_store, "READ_BYTES_MAX", len(data) - 1 - start)
    assert len(await ranges()) == 1
    monkeypatch.setattr(record_store, "READ_BYTES_MAX", len(data) - 2 - start)
    assert len(await ranges()) == 2


async def test_a_body_larger_than_what_is_read_at_once_is_read_alone() -> None:
    data = request(
        1, "x" * READ_BYTES_MAX, ["custom_id", "method", "url", "body"], "", spaced=False
    )
    assert await planned(data, await stored(data)) == await planned(data, None)


async def test_an_input_that_gets_lost_in_between_is_missing() -> None:
    data = gapped(1, 200)
    blobs = MemoryBlobs()
    await blobs.put("blob", data)
    source = InputFile(blobs, [Part(blob="blob", offset=0, length=len(data))])
    with ExitStack() as stack:
        validation = InputValidation(
            Planning(), io.BytesIO, stack, endpoint=CHAT, problems=FirstProblems(1), source=source
        )
        await validation.read(source.pieces())
        assert await validation.check_file() is None
        await blobs.delete("blob")
        with pytest.raises(BlobMissing):
            await anext(cut_shards(validation, Planning()))


async def test_a_source_is_read_in_pieces_of_a_bounded_size() -> None:
    data = bytes(range(256)) * (READ_BYTES // 100)
    source = await stored(data, [10, 20, READ_BYTES + 20])
    pieces = [piece async for piece in source.pieces()]
    assert b"".join(pieces) == data
    assert [len(piece) for piece in pieces[:3]] == [10, 10, READ_BYTES]
    assert max(map(len, pieces)) == READ_BYTES
    assert await source.read([(15, 10), (0, 1)]) == [data[15:25], data[:1]]
