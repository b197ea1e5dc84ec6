"""Planning behind a door: what a child process does for a batch whose planning killed processors.

The processor asks by calls, as it asks a model server, so that the same cells carry them: one call
for each line, one to judge them together, one for each slice of the plan. It looks at no line
itself and only hands bytes on (PROTOCOL 20).
"""

from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import msgspec
from typing_extensions import override

from tidegate.domain.batch import Problem
from tidegate.domain.errors import StorageFull
from tidegate.planning.cut_shards import ShardSlice, cut_shards
from tidegate.planning.problems import FirstProblems
from tidegate.planning.settings import Planning
from tidegate.planning.validate import InputValidation
from tidegate.sandbox.base import Sandbox
from tidegate.sorting.spill_file import OpenSpillFile
from tidegate.upstreams.base import Call, Reply, Upstream

LINE: Final = "/v1/plan/line"
JUDGE: Final = "/v1/plan/judge"
SLICE: Final = "/v1/plan/slice"

DONE = 200
NO_MORE = 204
# It has not heard the calls before: another child did, which is gone.
FORGOTTEN = 409
NO_ROOM = 507


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningTask:
    """What a child has to know before the first line; `served` as in `InputValidation`."""

    planning: Planning
    endpoint: str
    served: frozenset[str] | None


class SandboxedPlanner(Upstream):
    """Plans one batch, call by call; `step` in the headers counts the calls from 0.

    A line comes with its `number`, and `oversize` where it is too long to be told.
    """

    def __init__(self, task: PlanningTask, make_scratch: OpenSpillFile) -> None:
        self._task = task
        self._make_scratch = make_scratch
        self._stack = ExitStack()
        self._problems = FirstProblems(task.planning.errors_max)
        self._scan: InputValidation | None = None
        self._slices: AsyncIterator[ShardSlice] | None = None
        self._steps = 0

    @override
    async def send(self, call: Call) -> Reply:
        if call.headers["step"] != str(self._steps):
            return Reply(status=FORGOTTEN, headers={}, body=b"")
        self._steps += 1
        try:
            return await self._answer(call)
        except StorageFull as error:
            return Reply(status=NO_ROOM, headers={}, body=str(error).encode())

    @override
    async def aclose(self) -> None:
        self._stack.close()

    async def _answer(self, call: Call) -> Reply:
        scan = self._scan = self._scan or self._begun()
        match call.path:
            case "/v1/plan/line":
                raw = None if "oversize" in call.headers else call.body
                scan.take(int(call.headers["number"]), raw)
                return Reply(status=DONE, headers={}, body=b"")
            case "/v1/plan/judge":
                whole = await scan.judge()
                found = self._problems.listed() if whole is None else [whole]
                return Reply(status=DONE, headers={}, body=msgspec.msgpack.encode(found))
            case _:
                assert call.path == SLICE, call.path
                return await self._next_slice(scan)

    def _begun(self) -> InputValidation:
        task = self._task
        return InputValidation(
            task.planning,
            self._make_scratch,
            self._stack,
            endpoint=task.endpoint,
            problems=self._problems,
            served=task.served,
        )

    async def _next_slice(self, scan: InputValidation) -> Reply:
        self._slices = self._slices or cut_shards(scan, self._task.planning)
        found = await anext(self._slices, None)
        if found is None:
            return Reply(status=NO_MORE, headers={}, body=b"")
        return Reply(status=DONE, headers={}, body=msgspec.msgpack.encode(found))


class InProcessPlanSandbox(Sandbox):
    """Carries the calls of one planning to a door of this very process, and closes it."""

    def __init__(self, door: SandboxedPlanner) -> None:
        self._door = door

    @override
    async def send(self, call: Call) -> Reply:
        return await self._door.send(call)

    @override
    async def aclose(self) -> None:
        await self._door.aclose()


def problems_of(reply: Reply) -> list[Problem]:
    """Return the problems that a child found."""
    return msgspec.msgpack.decode(reply.body, type=list[Problem])


def slice_of(reply: Reply) -> ShardSlice:
    """Return the slice that a child cut."""
    return msgspec.msgpack.decode(reply.body, type=ShardSlice)
