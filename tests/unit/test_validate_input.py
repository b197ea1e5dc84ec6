"""What a scan keeps between two turns of others, and the order of what it found."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import ExitStack

import pytest
from hypothesis import given, strategies as st

from tidegate.planning import duplicate_ids, validate as scanning
from tidegate.planning.cut_shards import cut_shards
from tidegate.planning.problems import FirstProblems
from tidegate.planning.settings import Planning
from tidegate.planning.validate import LINE_WEIGHT, SLICE_LINES, SLICE_WEIGHT, InputValidation
from tidegate.sorting import spill_file
from tidegate.wire.jsonl import read_line
from tidegate.wire.lines import Line
from tidegate.wire.plan_format import unpack_all

CHAT = "/v1/chat/completions"


def request(number: int, text: str, model: str = "m") -> bytes:
    messages = [{"role": "user", "content": text}]
    body = {"model": model, "messages": messages}
    line = {"custom_id": f"{number}", "method": "POST", "url": CHAT, "body": body}
    return json.dumps(line, ensure_ascii=False).encode()


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def scan_of(stack: ExitStack, settings: Planning) -> InputValidation:
    return InputValidation(settings, io.BytesIO, stack, endpoint=CHAT, problems=FirstProblems(10))


async def turns_while_reading(data: bytes) -> int:
    """Return how often another task has its turn while all of this is read at once."""
    turns = 0
    done = False

    async def count() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    with ExitStack() as stack:
        validation = scan_of(stack, Planning())
        async with asyncio.TaskGroup() as group:
            group.create_task(count(), name="others")
            await validation.read(once(data))
            done = True
    return turns


async def test_others_have_their_turn_after_so_much() -> None:
    # A line counts its own bytes and `LINE_WEIGHT`; one that is too short to be sound counts too.
    size = 2**12
    line = request(1, "").ljust(size - 1) + b"\n"
    at_once = SLICE_WEIGHT // (LINE_WEIGHT + size - 1) + 1
    few = await turns_while_reading(line * (at_once - 1))
    assert await turns_while_reading(line * at_once) == few + 1
    assert await turns_while_reading(line * 10 * at_once) == few + 10


async def test_other_tasks_run_after_a_bounded_number_of_lines_however_short() -> None:
    at_once = SLICE_WEIGHT // (LINE_WEIGHT + 1) + 1
    assert at_once <= SLICE_LINES
    few = await turns_while_reading(b"x\n" * (at_once - 1))
    assert await turns_while_reading(b"x\n" * 5 * at_once) == few + 5


async def test_others_have_their_turn_after_a_run_was_written() -> None:
    with ExitStack() as stack:
        validation = scan_of(stack, Planning(run_lines_max=3))
        assert [validation.take(number, request(number, "x")) for number in range(1, 8)] == [
            False, False, True, False, False, True, False,
        ]  # fmt: skip


async def test_a_scan_lets_go_of_all_its_scratch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spill_file, "FREED_AT_ONCE", 100)
    monkeypatch.setattr(duplicate_ids, "NAMES_AT_ONCE", 2)
    opened: list[io.BytesIO] = []

    def make() -> io.BytesIO:
        opened.append(io.BytesIO())
        return opened[-1]

    with ExitStack() as stack:
        settings = Planning(run_lines_max=2)
        validation = InputValidation(
            settings, make, stack, endpoint=CHAT, problems=FirstProblems(10)
        )
        await validation.read(once(b"\n".join(request(number, "x") for number in range(9))))
        assert await validation.check_file() is None
        assert len([piece async for piece in cut_shards(validation, settings)]) == 1
        assert len(opened) == 3
        assert all(file.getvalue() for file in opened)
        await validation.free_space()
        assert not any(file.getvalue() for file in opened)


TEXTS = st.text(alphabet="ab\0é\x1f", max_size=3) | st.sampled_from(
    ["a" * size for size in (2_047, 2_048, 2_049, 4_096, 4_097)]
)


@given(
    prompts=st.lists(st.tuples(st.sampled_from(["m", "m1", "n"]), TEXTS), max_size=30),
    run_lines=st.integers(1, 10),
    shard_lines=st.integers(1, 10),
)
async def test_a_plan_equals_a_sort_in_memory(
    prompts: list[tuple[str, str]], run_lines: int, shard_lines: int
) -> None:
    raw = [request(n, text, model) for n, (model, text) in enumerate(prompts, start=1)]
    read = [read_line(n, line, endpoint=CHAT) for n, line in enumerate(raw, start=1)]
    lines = [line for line in read if isinstance(line, Line)]
    assert len(lines) == len(raw)
    settings = Planning(run_lines_max=run_lines, shard_lines_max=shard_lines)
    with ExitStack() as stack:
        validation = scan_of(stack, settings)
        await validation.read(once(b"\n".join(raw)))
        if not raw:
            assert await validation.check_file() == scanning._EMPTY
            return
        assert await validation.check_file() is None
        found = [piece async for piece in cut_shards(validation, settings)]
    planned = [(piece.model, line.number) for piece in found for line in unpack_all(piece.data)]
    lines.sort(key=lambda line: (line.model, line.prompt, line.number))
    assert planned == [(line.model, line.number) for line in lines]
    assert [piece.lines for piece in found] == [len(list(unpack_all(p.data))) for p in found]
    assert all(piece.lines <= shard_lines for piece in found)
