"""Planning in a child process, for a batch whose planning killed processors.

The processor sends calls as to a model server, so that the same sandboxes carry them: one for each
line, one to check the whole file, one for each slice of the plan. The processor itself parses no
line, and only passes bytes on (PROTOCOL 20).
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
CHECK: Final = "/v1/plan/check"
SLICE: Final = "/v1/plan/slice"

DONE = 200
NO_MORE = 204
# This child did not receive the earlier calls: they went to a child that has ended.
WRONG_STEP = 409
NO_ROOM = 507


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanningTask:
    """What a child needs before the first line; `served` as in `InputValidation`."""

    planning: Planning
    endpoint: str
    served: frozenset[str] | None


class SandboxedPlanner(Upstream, Sandbox):
    """Plans one batch, call by call; `step` in the headers counts the calls from 0.

    The call for a line has its `number`, and `oversize` instead of a body if it is too long. As a
    `Sandbox`, it plans in this process.
    """

    def __init__(self, task: PlanningTask, open_spill_file: OpenSpillFile) -> None:
        self._task = task
        self._open_spill_file = open_spill_file
        self._stack = ExitStack()
        self._problems = FirstProblems(task.planning.errors_max)
        self._validation: InputValidation | None = None
        self._slices: AsyncIterator[ShardSlice] | None = None
        self._steps = 0

    @override
    async def send(self, call: Call) -> Reply:
        if call.headers["step"] != str(self._steps):
            return Reply(status=WRONG_STEP, headers={}, body=b"")
        self._steps += 1
        try:
            return await self._answer(call)
        except StorageFull as error:
            return Reply(status=NO_ROOM, headers={}, body=str(error).encode())

    @override
    async def aclose(self) -> None:
        self._stack.close()

    async def _answer(self, call: Call) -> Reply:
        validation = self._validation = self._validation or self._start_validation()
        match call.path:
            case "/v1/plan/line":
                raw = None if "oversize" in call.headers else call.body
                validation.take(int(call.headers["number"]), raw)
                return Reply(status=DONE, headers={}, body=b"")
            case "/v1/plan/check":
                file_problem = await validation.check_file()
                found = self._problems.listed() if file_problem is None else [file_problem]
                return Reply(status=DONE, headers={}, body=msgspec.msgpack.encode(found))
            case _:
                assert call.path == SLICE, call.path
                return await self._next_slice(validation)

    def _start_validation(self) -> InputValidation:
        task = self._task
        return InputValidation(
            task.planning,
            self._open_spill_file,
            self._stack,
            endpoint=task.endpoint,
            problems=self._problems,
            served=task.served,
        )

    async def _next_slice(self, validation: InputValidation) -> Reply:
        self._slices = self._slices or cut_shards(validation, self._task.planning)
        found = await anext(self._slices, None)
        if found is None:
            return Reply(status=NO_MORE, headers={}, body=b"")
        return Reply(status=DONE, headers={}, body=msgspec.msgpack.encode(found))


def problems_of(reply: Reply) -> list[Problem]:
    """Return the problems that a child found."""
    return msgspec.msgpack.decode(reply.body, type=list[Problem])


def slice_of(reply: Reply) -> ShardSlice:
    """Return the slice that a child cut."""
    return msgspec.msgpack.decode(reply.body, type=ShardSlice)
