"""A cell with a real child process, on both event loops."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import pytest

from tidegate.domain.errors import (
    ConnectFailed,
    ReplyBroken,
    ReplyTooLarge,
    SandboxDied,
    SandboxNotStarted,
    SettingsInvalid,
    TimedOut,
    UpstreamFault,
)
from tidegate.sandbox.process import ProcessSandbox, ProcessSandboxSettings
from tidegate.sandbox.protocol import ChildReady, ChildReply, encode_frame
from tidegate.upstreams.base import Call, Reply

CHILD = (sys.executable, "-P", str(Path(__file__).with_name("deadly_child.py")))
MIB = 2**20


class MakeSandbox(Protocol):
    """Makes a cell in front of a child."""

    def __call__(
        self,
        command: tuple[str, ...] = CHILD,
        *,
        answer_bytes: int = MIB,
        answer_seconds: float = 30.0,
        start_seconds: float = 30.0,
    ) -> ProcessSandbox: ...


def call(body: bytes) -> Call:
    return Call(path="/v1/x", body=body, headers={"x-request-id": "r"})


def answers(*frames: bytes, unasked: bytes = b"") -> tuple[str, ...]:
    """Return a child that is ready, and then answers each frame that comes with one of these."""
    program = (
        "import os, sys\n"
        "def read(n):\n"
        "    data = b''\n"
        "    while len(data) < n: data += os.read(0, n - len(data))\n"
        "def frame(): read(0); n = int.from_bytes(os.read(0, 4), 'big'); read(n)\n"
        f"for said in {[encode_frame(ChildReady()), *frames]!r}:\n"
        "    frame(); os.write(1, said)\n"
        f"os.write(1, {unasked!r})\n"
        "os.read(0, 1)\n"
    )
    return (sys.executable, "-c", program)


def is_gone(pid: int) -> bool:
    """Return whether no process of this number runs, nor waits to be reaped by us."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return True
    return state[0] == "Z" and int(state[1]) != os.getpid()


def children() -> set[int]:
    """Return the numbers of our own child processes, also of those that wait to be reaped."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        # A thread may end between the two looks; its children pass to another one.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= {int(number) for number in (task / "children").read_text().split()}
    return found


def about(pid: int, what: str) -> str:
    """Return what the kernel reports of a process."""
    return Path(f"/proc/{pid}/{what}").read_text()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a change that has no event."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the kernel sets no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def make_cell() -> AsyncIterator[MakeSandbox]:
    """Give a maker of cells; each is closed in the end and must then leave no process."""
    async with AsyncExitStack() as stack:

        def make(
            command: tuple[str, ...] = CHILD,
            *,
            answer_bytes: int = MIB,
            answer_seconds: float = 30.0,
            start_seconds: float = 30.0,
        ) -> ProcessSandbox:
            cell = ProcessSandbox(
                ProcessSandboxSettings(
                    command=command,
                    memory_bytes_max=512 * MIB,
                    answer_bytes_max=answer_bytes,
                    answer_seconds=answer_seconds,
                    start_seconds=start_seconds,
                    detail=b"the-detail",
                )
            )
            stack.push_async_callback(closed, cell)
            return cell

        yield make


async def closed(cell: ProcessSandbox) -> None:
    pid = cell.pid
    await cell.aclose()
    assert cell.pid is None
    assert pid is None or is_gone(pid)


async def one_child(cell: ProcessSandbox, body: bytes = b"one") -> int:
    """Send a good call, and return the number of the child that carried it."""
    assert (await cell.send(call(body))).body == body
    assert cell.pid is not None
    return cell.pid


async def test_one_child_carries_call_after_call(make_cell: MakeSandbox) -> None:
    cell = make_cell()
    assert cell.pid is None, "started before its first line"
    first = await one_child(cell)
    odd = bytes(range(256)) * 4
    reply = await cell.send(call(odd))
    assert reply == Reply(
        status=200, headers={"x-request-id": "r", "detail": "the-detail", "path": "/v1/x"}, body=odd
    )
    assert await one_child(cell, b"print") == first, "what is printed is no answer"


async def test_calls_that_meet_wait_for_each_other(make_cell: MakeSandbox) -> None:
    cell = make_cell()
    replies = await asyncio.gather(*(cell.send(call(b"%d" % number)) for number in range(20)))
    assert [reply.body for reply in replies] == [b"%d" % number for number in range(20)]


async def test_faults_keep_their_kind_and_the_child_lives(make_cell: MakeSandbox) -> None:
    cell = make_cell()
    pid = await one_child(cell)
    faults = [
        (b"connect", ConnectFailed, "Nobody there."),
        (b"late", TimedOut, "Nothing came."),
        (b"broken", ReplyBroken, "It broke off."),
        (b"large", ReplyTooLarge, "Too much."),
        (b"bug", ReplyBroken, "The call failed in the gateway itself: KeyError."),
    ]
    for body, kind, words in faults:
        with pytest.raises(UpstreamFault) as caught:
            await cell.send(call(body))
        assert (type(caught.value), str(caught.value)) == (kind, words)
        if isinstance(caught.value, TimedOut):
            assert caught.value.phase == "idle"
    assert await one_child(cell) == pid


@pytest.mark.parametrize(
    ("body", "how"),
    [
        (b"die", "ended by SIGKILL"),
        (b"leave", "ended with status 7"),
        (b"unfit", "ended by an error: ValueError at deadly_child.py"),
        (b"eat %d" % (2 * 512 * MIB), "ended by an error: MemoryError"),
    ],
)
async def test_a_deadly_line_kills_the_child_alone(
    make_cell: MakeSandbox, body: bytes, how: str
) -> None:
    cell = make_cell()
    before = await one_child(cell)
    with pytest.raises(SandboxDied, match=how) as caught:
        await cell.send(call(body))
    assert "secret" not in str(caught.value)
    assert cell.pid is None
    assert is_gone(before)
    assert await one_child(cell) != before


async def test_what_stays_within_the_memory_lives(make_cell: MakeSandbox) -> None:
    assert (await make_cell().send(call(b"eat %d" % (128 * MIB)))).body == b"%d" % (128 * MIB)


async def test_a_child_killed_from_outside_in_mid_call(make_cell: MakeSandbox) -> None:
    cell = make_cell()
    pid = await one_child(cell)

    async def carry() -> None:
        with pytest.raises(SandboxDied, match="SIGKILL"):
            await cell.send(call(b"wait"))

    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        group.create_task(carry(), name="a call")
        await asyncio.sleep(0)
        os.kill(pid, signal.SIGKILL)
    assert is_gone(pid)


async def test_a_child_killed_while_it_idles_costs_no_line(make_cell: MakeSandbox) -> None:
    cell = make_cell()
    pid = await one_child(cell)
    os.kill(pid, signal.SIGKILL)
    await until(lambda: not cell.is_alive)
    assert await one_child(cell) != pid


async def test_a_child_that_hangs_ends_by_its_own_timer(make_cell: MakeSandbox) -> None:
    cell = make_cell(answer_seconds=0.5)
    with pytest.raises(SandboxDied, match="SIGALRM"):
        await cell.send(call(b"hang"))
    assert (await cell.send(call(b"good"))).body == b"good"


async def test_cancelling_ends_the_child(make_cell: MakeSandbox) -> None:
    cell = make_cell()
    pid = await one_child(cell)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await cell.send(call(b"wait"))
    assert cell.pid is None
    assert is_gone(pid)
    assert await one_child(cell) != pid


async def test_cancelling_at_any_moment_of_the_start_leaves_nothing(make_cell: MakeSandbox) -> None:
    before = children()
    cell = make_cell()
    for turns in range(12):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(cell.send(call(b"cancelled")), name="a call to cancel")
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        assert cell.pid is None
    await until(lambda: children() == before)
    assert children() | {await one_child(cell)} == children()


async def test_stop_signals_are_for_the_parent(make_cell: MakeSandbox) -> None:
    cell = make_cell()
    pid = await one_child(cell)
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pid, name)
    assert await one_child(cell) == pid
    assert os.getpgid(pid) == pid, "a signal to our group would reach it"


async def test_a_child_is_bounded_and_the_first_to_go(make_cell: MakeSandbox) -> None:
    pid = await one_child(make_cell())
    assert about(pid, "oom_score_adj").strip() == "1000"
    limits = {row[:25].strip(): row[25:].split()[0] for row in about(pid, "limits").splitlines()}
    assert limits["Max address space"] == str(512 * MIB)
    assert limits["Max core file size"] == "0"


@pytest.mark.parametrize(
    ("said", "how"),
    [
        (b"\x00\x00\x00\x03abc", "what it wrote is no answer"),
        (b"\xff" * 100, "it announced 4294967295 bytes"),
        (encode_frame(ChildReady()), "it did not answer the call"),
    ],
)
async def test_a_child_that_talks_nonsense_is_ended(
    make_cell: MakeSandbox, said: bytes, how: str
) -> None:
    cell = make_cell(answers(said))
    with pytest.raises(SandboxDied, match=how):
        await cell.send(call(b"{}"))
    assert cell.pid is None


async def test_what_nobody_asked_for_is_never_taken_for_an_answer(make_cell: MakeSandbox) -> None:
    cell = make_cell(
        answers(
            encode_frame(ChildReply(200, {}, b"a")), unasked=encode_frame(ChildReply(200, {}, b"b"))
        )
    )
    assert (await cell.send(call(b"{}"))).body == b"a"
    first = cell.pid
    await until(lambda: not cell.is_alive)
    assert (await cell.send(call(b"{}"))).body == b"a"
    assert cell.pid != first


async def test_an_answer_at_the_bound_and_one_beyond(make_cell: MakeSandbox) -> None:
    over = len(encode_frame(ChildReply(200, {}, bytes(1_000)))) - 4 - 1_000
    cell = make_cell(answer_bytes=1_000 + over)
    assert len((await cell.send(call(b"fill 1000"))).body) == 1_000
    with pytest.raises(SandboxDied, match=f"of which {1_000 + over} are allowed"):
        await cell.send(call(b"fill 1001"))


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("/nowhere/at/all",), "No such file"),
        ((*CHILD, "refuse"), "status 9"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), "no answer in 0.3 seconds"),
        ((sys.executable, "-c", "import os; os.write(1, b'\\xff' * 8)"), "it announced"),
    ],
)
async def test_a_child_that_does_not_start_is_no_death(
    make_cell: MakeSandbox, command: tuple[str, ...], why: str
) -> None:
    cell = make_cell(command, start_seconds=0.3 if "sleep" in command[-1] else 30.0)
    for _ in range(2):
        with pytest.raises(SandboxNotStarted, match=why):
            await cell.send(call(b"{}"))
        assert cell.pid is None


async def test_closing_twice_and_before_any_call_is_harmless(make_cell: MakeSandbox) -> None:
    cell = make_cell()
    await one_child(cell)
    await cell.aclose()
    await cell.aclose()
    with pytest.raises(ConnectFailed, match="closed"):
        await cell.send(call(b"{}"))
    await make_cell().aclose()


async def test_a_child_ends_with_its_parent() -> None:
    program = (
        "import asyncio, sys\n"
        "from tidegate.upstreams.base import Call\n"
        "from tidegate.sandbox.process import ProcessSandboxSettings, ProcessSandbox\n"
        "async def main():\n"
        f"    cell = ProcessSandbox(ProcessSandboxSettings(command={CHILD!r},\n"
        "        memory_bytes_max=2**29,\n"
        "        answer_bytes_max=2**20, answer_seconds=30, start_seconds=30))\n"
        "    await cell.send(Call(path='/v1/x', body=b'{}'))\n"
        "    print(cell.pid, flush=True)\n"
        "    await cell.send(Call(path='/v1/x', body=b'wait'))\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert not is_gone(pid)
    parent.kill()
    await parent.wait()
    await until(lambda: is_gone(pid))


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory_bytes_max": 0},
        {"answer_bytes_max": 0},
        {"answer_seconds": 0.0},
        {"start_seconds": 0.0},
    ],
)
def test_bounds_of_nothing_are_refused(wrong: dict[str, int]) -> None:
    sound = ProcessSandboxSettings(
        command=CHILD, memory_bytes_max=1, answer_bytes_max=1, answer_seconds=1, start_seconds=1
    )
    with pytest.raises(SettingsInvalid, match="above 0"):
        replace(sound, **wrong)  # type: ignore[arg-type]  # that is what is tested
