"""The pipe through which a parent process controls its child."""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvloop

from tidegate.domain.errors import SettingsInvalid
from tidegate.runtime.services import ShutdownRequest
from tidegate.supervisor import control_pipe
from tidegate.supervisor.control_pipe import listen_to_parent, read_first_line
from tidegate.supervisor.supervisor import start_child


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    os.close(reading)


async def soon(event: asyncio.Event) -> None:
    async with asyncio.timeout(10.0):
        await event.wait()


async def test_the_first_order_stops_and_the_second_forces(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    shutdown = ShutdownRequest()
    with listen_to_parent(shutdown, reading):
        os.write(writing, b"\n")
        await soon(shutdown.requested)
        assert not shutdown.forced.is_set()
        os.write(writing, b"\n")
        await soon(shutdown.forced)
    os.close(writing)


async def test_the_end_of_the_pipe_stops_but_forces_nothing(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    shutdown = ShutdownRequest()
    with listen_to_parent(shutdown, reading):
        os.write(writing, b"\n")
        os.close(writing)
        await soon(shutdown.requested)
        await turns()
        assert not shutdown.forced.is_set()
        # A signal of the operator now counts as the second request.
        shutdown.request()
        assert shutdown.forced.is_set()


async def test_an_order_and_a_signal_are_not_two_orders(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    shutdown = ShutdownRequest()
    shutdown.request()
    with listen_to_parent(shutdown, reading):
        os.write(writing, b"\n")
        await turns()
        os.set_blocking(reading, False)
        with pytest.raises(BlockingIOError):
            os.read(reading, 1)
        assert not shutdown.forced.is_set()
    os.close(writing)


async def turns() -> None:
    """Let the loop look at its pipes a few times: what lies in one by now is read."""
    for _ in range(3):
        await asyncio.sleep(0)


def test_one_line_is_handed_over_and_orders_stay_for_later(pipe: tuple[int, int]) -> None:
    reading, writing = pipe
    os.write(writing, b'{"some": "settings"}\n\n')
    os.close(writing)
    assert read_first_line(reading) == '{"some": "settings"}'
    assert os.read(reading, 10) == b"\n"


def test_without_a_whole_line_nothing_is_handed_over(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    reading, writing = pipe
    os.write(writing, b"half a line")
    os.close(writing)
    with pytest.raises(SettingsInvalid, match="No settings came on standard input"):
        read_first_line(reading)
    monkeypatch.setattr(control_pipe, "FIRST_LINE_BYTES_MAX", 4)
    for text, fits in ((b"1234\n", True), (b"12345\n", False)):
        reading, writing = os.pipe()
        os.write(writing, text)
        if fits:
            assert read_first_line(reading) == "1234"
        else:
            with pytest.raises(SettingsInvalid):
                read_first_line(reading)
        os.close(reading)
        os.close(writing)


def test_a_terminal_or_a_file_is_no_parent() -> None:
    with Path(os.devnull).open() as null, pytest.raises(SettingsInvalid, match="leave it out"):
        read_first_line(null.fileno())


ECHO = """
import sys
handed = sys.stdin.readline()
print("ready with", handed.strip(), flush=True)
print("x" * 100_000, flush=True)
print("a word", flush=True)
for line in sys.stdin:
    if line == "\\n":
        sys.exit(7)
sys.exit(8)
"""


async def test_a_real_child_is_stopped_and_reports_it() -> None:
    child = await start_child([sys.executable, "-c", ECHO], "a secret")
    async with asyncio.timeout(30.0):
        assert await child.ready() == "ready with a secret"
        assert child.pid > 0
        child.request_stop()
        assert await child.wait() == 7, "what it prints later does not block it"


async def test_a_real_child_can_be_killed() -> None:
    child = await start_child([sys.executable, "-c", ECHO], "x")
    async with asyncio.timeout(30.0):
        assert (await child.ready()).startswith("ready")
        child.kill()
        assert await child.wait() == -9
        child.kill()
        child.request_stop()


async def test_a_child_that_ends_without_a_word_is_not_ready() -> None:
    child = await start_child([sys.executable, "-c", "raise SystemExit(3)"], "x")
    async with asyncio.timeout(30.0):
        assert await child.ready() == ""
        assert await child.wait() == 3


ORPHAN = """
import os, subprocess
subprocess.Popen(["sleep", "60"], stdin=subprocess.DEVNULL)
print("ready", flush=True)
os._exit(1)
"""


async def signalled_for_ever(pid: int) -> None:
    for _ in range(1_000):
        os.kill(pid, 0)
        await asyncio.sleep(0.01)


def test_a_message_to_a_child_that_has_just_ended_does_not_fail() -> None:
    async def tell() -> None:
        child = await start_child([sys.executable, "-c", ORPHAN], "x")
        assert await child.ready() == "ready"
        with pytest.raises(ProcessLookupError):
            await signalled_for_ever(child.pid)
        child.request_stop()
        os.killpg(child.pid, signal.SIGKILL)
        assert await child.wait() == 1

    # The loop that the product runs on: others say nothing of a pipe that is closed.
    uvloop.run(tell())
