"""Plans a batch in a child process, because planning it may kill the process (PROTOCOL 20).

The child gets the file line by line, so that it is known which line it died of. Every child starts
with the first line, because a child that dies loses its state.
"""

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator

from tidegate.domain.batch import Problem
from tidegate.domain.errors import SandboxDied, StorageFull, UpstreamFault
from tidegate.domain.shard import DEATHS_TO_BLAME
from tidegate.planning.cut_shards import ShardSlice
from tidegate.planning.sandboxed import (
    CHECK,
    LINE,
    NO_MORE,
    NO_ROOM,
    SLICE,
    WRONG_STEP,
    problems_of,
    slice_of,
)
from tidegate.planning.settings import Planning
from tidegate.planning.validate import too_many
from tidegate.sandbox.base import Sandbox
from tidegate.upstreams.base import Call, Reply
from tidegate.wire.jsonl import LineSplitter

# How many children may die of one batch, at any of its lines.
PLANNING_DEATHS_MAX = 10
# Pause before the next child, so that a short trouble of the machine does not end two.
PAUSE_SECONDS = 1.0


class PlanningSession:
    """One child that plans one batch: `read` it first, then take its `slices`.

    Attributes:
        place: what the child is doing, as text.
        line: the number of the line that it is reading, if any.
    """

    def __init__(self, sandbox: Sandbox, settings: Planning) -> None:
        self._sandbox = sandbox
        self._settings = settings
        self._steps = 0
        self._lines = 0
        self.place = "start"
        self.line: int | None = None

    async def read(self, pieces: AsyncIterator[bytes]) -> list[Problem]:
        """Let the child read the whole input; return its problems.

        Raises:
            SandboxDied: the child died; begin again with another session.
            SandboxNotStarted: no child could be started.
            StorageFull: the child found no room to sort.
        """
        splitter = LineSplitter(self._settings.line_bytes_max)
        async for piece in pieces:
            for number, raw in splitter.feed(piece):
                await self._send_line(number, raw)
        for number, raw in splitter.finish():
            await self._send_line(number, raw)
        if self._lines > self._settings.lines_max:
            return [too_many(self._lines, self._settings.lines_max)]
        self.place, self.line = "checking all lines", None
        return problems_of(await self._ask(CHECK))

    async def slices(self) -> AsyncGenerator[ShardSlice, None]:
        """Yield the plan of an input without problems.

        Raises:
            SandboxDied: the child died, or its plan has another number of lines than the input.
            StorageFull: the child found no room.
        """
        lines = 0
        while True:
            self.place = f"sorting after {lines} lines"
            reply = await self._ask(SLICE)
            if reply.status == NO_MORE:
                break
            found = slice_of(reply)
            lines += found.lines
            yield found
        if lines != self._lines:
            raise SandboxDied(f"The child process planned {lines} lines of {self._lines}.")

    async def aclose(self) -> None:
        """End the child."""
        await self._sandbox.aclose()

    async def _send_line(self, number: int, raw: bytes | None) -> None:
        self._lines += 1
        if self._lines > self._settings.lines_max:
            return
        self.place, self.line = f"line {number}", number
        headers = {"number": str(number)}
        if raw is None:
            headers["oversize"] = "1"
        await self._ask(LINE, raw or b"", headers)

    async def _ask(
        self, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Reply:
        step = str(self._steps)
        self._steps += 1
        try:
            reply = await self._sandbox.send(
                Call(path=path, body=body, headers={**(headers or {}), "step": step})
            )
        except UpstreamFault as fault:
            # An unexpected error, which would have ended a whole processor.
            raise SandboxDied(str(fault)) from fault
        if reply.status == WRONG_STEP:
            # The child ended between two calls, so no line is the cause.
            self.place, self.line = "between two lines", None
            raise SandboxDied("The child process was replaced by another one.")
        if reply.status == NO_ROOM:
            raise StorageFull(reply.body.decode())
        return reply


class CrashCounter:
    """Counts how often children died of planning one batch, and where."""

    def __init__(self) -> None:
        self._at: Counter[str] = Counter()

    def record(self, attempt: PlanningSession) -> Problem | None:
        """Record a death; return the problem of the file, once it is certain."""
        self._at[attempt.place] += 1
        if attempt.line is not None and self._at[attempt.place] >= DEATHS_TO_BLAME:
            return Problem(
                code="processor_crashed",
                message=(
                    f"The process that read this line died of it {DEATHS_TO_BLAME} times. Take the "
                    "line out of the file, or write its request in another way."
                ),
                line=attempt.line,
            )
        if self._at.total() < PLANNING_DEATHS_MAX:
            return None
        return Problem(
            code="processor_crashed",
            message=(
                f"The process that planned this batch died of it {PLANNING_DEATHS_MAX} times. "
                "Split the file to find the requests that it dies of, and leave them out."
            ),
        )
