"""The real child process in which a batch is planned."""

import asyncio
import os
import random
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tidegate.domain.batch import Problem
from tidegate.domain.errors import SandboxDied, StorageFull
from tidegate.planning.cut_shards import ShardSlice, cut_shards
from tidegate.planning.problems import FirstProblems
from tidegate.planning.sandboxed import CHECK, LINE, PlanningTask
from tidegate.planning.session import PlanningSession
from tidegate.planning.settings import Planning
from tidegate.planning.validate import InputValidation
from tidegate.sandbox.process import ProcessSandbox
from tidegate.testing.deployment import CHAT, request_line
from tidegate.upstreams.base import Call
from tidegate.wiring.sandbox import PLAN_COMMAND, open_planning, planning_sandbox

MEMORY = 2**30
# So small that a few hundred lines fill many runs on scratch and many slices.
SETTINGS = Planning(shard_lines_max=7, run_lines_max=20, errors_max=5, line_bytes_max=4_000)


def open_sandbox(
    folder: Path, settings: Planning = SETTINGS, served: frozenset[str] | None = None
) -> ProcessSandbox:
    task = PlanningTask(planning=settings, endpoint=CHAT, served=served)
    return planning_sandbox(task, scratch=folder, memory_bytes_max=MEMORY, start_seconds=30.0)


def a_file(count: int) -> bytes:
    chance = random.Random(0)
    return b"".join(
        request_line(f"é-{n}", f"model-{chance.randint(0, 3)}", content="x" * chance.randint(0, 99))
        for n in range(count)
    )


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(data), 1_000):
        yield data[start : start + 1_000]


def left_in(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def planned_here(
    data: bytes, served: frozenset[str] | None = None
) -> list[Problem | ShardSlice]:
    with ExitStack() as stack:
        found = FirstProblems(SETTINGS.errors_max)
        validation = InputValidation(
            SETTINGS, tempfile.TemporaryFile, stack, endpoint=CHAT, problems=found, served=served
        )
        await validation.read(pieces(data))
        whole = await validation.check_file()
        if whole is not None:
            return [whole]
        return [*found.listed()] or [piece async for piece in cut_shards(validation, SETTINGS)]


async def planned_alone(attempt: PlanningSession, data: bytes) -> list[Problem | ShardSlice]:
    try:
        problems = await attempt.read(pieces(data))
        return [*problems] or [piece async for piece in attempt.slices()]
    finally:
        await attempt.aclose()


@pytest.mark.parametrize(
    ("data", "served"),
    [
        (a_file(300), None),
        (a_file(300), frozenset({"model-0", "model-1"})),
        (b"", None),
        (a_file(3) + b"x" * 5_000 + b"\n" + a_file(2) + b"\xff\n{}\n[]\n", None),
    ],
)
async def test_a_child_plans_and_complains_as_a_processor_does(
    tmp_path: Path, data: bytes, served: frozenset[str] | None
) -> None:
    cell = open_sandbox(tmp_path, served=served)
    assert cell.settings.command == PLAN_COMMAND
    found = await planned_alone(PlanningSession(cell, SETTINGS), data)
    assert found == await planned_here(data, served)
    assert found
    assert not cell.is_alive
    assert left_in(tmp_path) == [], "scratch was left behind"


async def test_a_line_of_the_largest_size_goes_through(tmp_path: Path) -> None:
    room = 8 * 2**20 - len(request_line("a", content=""))
    data = request_line("a", content="x" * room)
    settings = Planning()
    assert len(data) - 1 <= settings.line_bytes_max < len(data) + 1
    (found,) = await planned_alone(
        PlanningSession(open_sandbox(tmp_path, settings), settings), data
    )
    assert isinstance(found, ShardSlice)
    assert (found.lines, found.model) == (1, "m")
    assert len(found.data) > room


async def test_the_place_of_a_death_is_known(tmp_path: Path) -> None:
    cell = open_sandbox(tmp_path)
    attempt = PlanningSession(cell, SETTINGS)

    async def deadly() -> AsyncIterator[bytes]:
        yield a_file(2)
        assert cell.pid is not None
        # Stopped, it can't answer the next line; killed after that, it dies of it.
        os.kill(cell.pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.05, os.kill, cell.pid, signal.SIGKILL)
        yield request_line("third")

    with pytest.raises(SandboxDied, match="SIGKILL"):
        await attempt.read(deadly())
    assert (attempt.line, attempt.place) == (3, "line 3")
    await attempt.aclose()


async def test_a_child_that_ended_between_two_lines_is_noticed(tmp_path: Path) -> None:
    cell = open_sandbox(tmp_path)
    attempt = PlanningSession(cell, SETTINGS)

    async def interrupted() -> AsyncIterator[bytes]:
        yield a_file(2)
        assert cell.pid is not None
        os.kill(cell.pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while cell.is_alive:  # noqa: ASYNC110 - what is watched knows nothing of tests
                await asyncio.sleep(0.005)
        yield request_line("third")

    with pytest.raises(SandboxDied, match="replaced"):
        await attempt.read(interrupted())
    assert attempt.line is None
    await attempt.aclose()


async def test_a_folder_that_takes_no_scratch_is_a_full_disk(tmp_path: Path) -> None:
    attempt = PlanningSession(open_sandbox(tmp_path / "missing"), SETTINGS)
    with pytest.raises(StorageFull, match="scratch"):
        await attempt.read(pieces(a_file(1)))
    await attempt.aclose()


async def test_a_planner_refuses_steps_out_of_order(tmp_path: Path) -> None:
    planner = open_planning(open_sandbox(tmp_path).settings.detail)
    line = Call(path=LINE, body=request_line("a"), headers={"step": "0", "number": "1"})
    assert (await planner.send(line)).status == 200
    assert (await planner.send(line)).status == 409
    assert (await planner.send(Call(path=CHECK, body=b"", headers={"step": "2"}))).status == 409
    assert (await planner.send(Call(path=CHECK, body=b"", headers={"step": "1"}))).status == 200
    await planner.aclose()


async def test_a_plan_of_other_lines_is_refused(tmp_path: Path) -> None:
    attempt = PlanningSession(open_sandbox(tmp_path), SETTINGS)
    assert await attempt.read(pieces(a_file(3))) == []
    attempt._lines += 1
    with pytest.raises(SandboxDied, match="3 lines of 4"):
        assert [piece async for piece in attempt.slices()]
    await attempt.aclose()
