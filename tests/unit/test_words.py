"""What a child says of itself, through a real pipe, and how its parent takes it."""

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, strategies as st

from tidegate.api.observability import Condition
from tidegate.runtime.words import (
    LINE_BYTES_MAX,
    REASON_CHARACTERS_MAX,
    SAY_SECONDS,
    Lines,
    Speaker,
    words_of,
)
from tidegate.testing.loop import run_virtual
from tidegate.wiring.serving import Heard, room_of


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    yield reading, writing
    for descriptor in (reading, writing):
        with suppress(OSError):
            os.close(descriptor)


def read(descriptor: int) -> list[str | None]:
    """Return every reason that lies in the pipe."""
    data = b""
    with suppress(BlockingIOError):
        while piece := os.read(descriptor, 1 << 20):
            data += piece
    found = [words_of(line) for line in Lines().feed(data)]
    assert None not in found
    return [words.storage for words in found if words is not None]


def test_a_child_tells_each_change_once(pipe: tuple[int, int]) -> None:
    async def story() -> None:
        reading, writing = pipe
        reason: list[str | None] = ["no room at first"]
        speaker = Speaker(lambda: reason[0], writing)
        async with asyncio.TaskGroup() as group:
            group.create_task(speaker.run(), name="speaker")
            await asyncio.sleep(3 * SAY_SECONDS)
            assert read(reading) == [], "the ready line comes first"
            reason[0] = None
            speaker.begin()
            await asyncio.sleep(3 * SAY_SECONDS)
            assert read(reading) == []
            reason[0] = "no room"
            await asyncio.sleep(3 * SAY_SECONDS)
            assert read(reading) == ["no room"]
            reason[0] = None
            await asyncio.sleep(3 * SAY_SECONDS)
            assert read(reading) == [None]
            speaker.stop()
            speaker.abort()

    run_virtual(story())


def test_what_does_not_fit_into_the_pipe_is_said_later(pipe: tuple[int, int]) -> None:
    async def story() -> None:
        reading, writing = pipe
        os.set_blocking(writing, False)
        filler = b"x" * 4_096
        with suppress(BlockingIOError):
            while True:
                os.write(writing, filler)
        speaker = Speaker(lambda: "no room", writing)
        speaker.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(speaker.run(), name="speaker")
            await asyncio.sleep(3 * SAY_SECONDS)
            while True:
                with suppress(BlockingIOError):
                    os.read(reading, 1 << 20)
                    continue
                break
            await asyncio.sleep(3 * SAY_SECONDS)
            assert read(reading) == ["no room"]
            os.close(reading)
            await asyncio.sleep(3 * SAY_SECONDS)
            speaker.stop()

    run_virtual(story())


def test_a_parent_that_is_gone_ends_no_child(pipe: tuple[int, int]) -> None:
    async def story() -> None:
        reading, writing = pipe
        os.close(reading)
        speaker = Speaker(lambda: "no room", writing)
        speaker.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(speaker.run(), name="speaker")
            await asyncio.sleep(3 * SAY_SECONDS)
            speaker.stop()

    run_virtual(story())


def test_a_long_reason_is_cut_and_fits_into_a_line(pipe: tuple[int, int]) -> None:
    async def story() -> None:
        reading, writing = pipe
        speaker = Speaker(lambda: "\U0001f4be" * 10_000, writing)
        speaker.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(speaker.run(), name="speaker")
            await asyncio.sleep(SAY_SECONDS)
            speaker.stop()
        assert read(reading) == ["\U0001f4be" * REASON_CHARACTERS_MAX]

    run_virtual(story())


@given(st.lists(st.binary(max_size=20)), st.integers(1, 7))
def test_lines_come_out_however_they_are_cut(pieces: list[bytes], size: int) -> None:
    data = b"".join(pieces)
    lines = Lines()
    found = [
        line
        for start in range(0, len(data), size)
        for line in lines.feed(data[start : start + size])
    ]
    assert found == data.split(b"\n")[:-1]


@pytest.mark.parametrize(("size", "count"), [(LINE_BYTES_MAX, 2), (LINE_BYTES_MAX + 1, 1)])
@pytest.mark.parametrize("step", [1_000, 1 << 20])
def test_a_line_that_is_too_long_is_left_out_alone(size: int, count: int, step: int) -> None:
    data = b"x" * size + b"\n" + b"next\n"
    lines = Lines()
    found = [
        line
        for start in range(0, len(data), step)
        for line in lines.feed(data[start : start + step])
    ]
    assert len(found) == count
    assert found[-1] == b"next"


@pytest.mark.parametrize("line", [b"", b"ready", b"{", b"[]", b'{"storage": 3}', b"\xff"])
def test_what_is_no_word_says_nothing(line: bytes) -> None:
    assert words_of(line) is None
    heard = Heard()
    heard.child_said("processor-1", line)
    assert room_of(heard) == Condition(fine=True, words="ok")


def test_the_parent_says_which_child_finds_no_room_until_all_do() -> None:
    heard = Heard()
    heard.child_said("processor-2", b'{"storage":"no room"}')
    heard.child_said("processor-1", b'{"storage":"quota"}')
    assert room_of(heard) == Condition(fine=False, words="processor-1: quota")
    heard.child_said("processor-1", b"{}")
    assert room_of(heard).words == "processor-2: no room"
    heard.child_ended("processor-2", "exit status 1", 0.5)
    assert room_of(heard).fine
    heard.child_said("processor-2", b'{"storage":"no room"}')
    heard.child_overdue("processor-2", 7, killed=True)
    assert room_of(heard).fine
