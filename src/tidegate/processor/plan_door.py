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
from tidegate.processor.planning_settings import Planning
from tidegate.processor.problems import Problems
from tidegate.processor.scan import Scan
from tidegate.processor.scratch import ScratchMaker
from tidegate.processor.slices import Slice, slices
from tidegate.sandbox.base import Cell
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
class PlanTask:
    """What a child has to know before the first line; `served` as in `Scan`."""

    planning: Planning
    endpoint: str
    served: frozenset[str] | None


class PlanDoor(Upstream):
    """Plans one batch, call by call; `step` in the headers counts the calls from 0.

    A line comes with its `number`, and `oversize` where it is too long to be told.
    """

    def __init__(self, task: PlanTask, make_scratch: ScratchMaker) -> None:
        self._task = task
        self._make_scratch = make_scratch
        self._stack = ExitStack()
        self._problems = Problems(task.planning.errors_max)
        self._scan: Scan | None = None
        self._slices: AsyncIterator[Slice] | None = None
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

    def _begun(self) -> Scan:
        task = self._task
        return Scan(
            task.planning,
            self._make_scratch,
            self._stack,
            endpoint=task.endpoint,
            problems=self._problems,
            served=task.served,
        )

    async def _next_slice(self, scan: Scan) -> Reply:
        self._slices = self._slices or slices(scan, self._task.planning)
        found = await anext(self._slices, None)
        if found is None:
            return Reply(status=NO_MORE, headers={}, body=b"")
        return Reply(status=DONE, headers={}, body=msgspec.msgpack.encode(found))


class PlanCell(Cell):
    """Carries the calls of one planning to a door of this very process, and closes it."""

    def __init__(self, door: PlanDoor) -> None:
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


def slice_of(reply: Reply) -> Slice:
    """Return the slice that a child cut."""
    return msgspec.msgpack.decode(reply.body, type=Slice)
