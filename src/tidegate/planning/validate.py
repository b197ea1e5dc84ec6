"""The first pass over a batch file: validates every line, and collects the valid ones for sorting.

The planner runs it on an uploaded file, and `tidegate validate` on a local file, so that there is
one set of rules (PROTOCOL 6). Memory is bounded for files of any size.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import Protocol

from tidegate.domain.batch import Problem
from tidegate.planning.duplicate_ids import DuplicateIdFinder
from tidegate.planning.input_file import InputFile
from tidegate.planning.record_store import RecordStore, SourceRecords, SpilledRecords
from tidegate.planning.settings import Planning
from tidegate.sorting.external_sort import ExternalSorter
from tidegate.sorting.spill_file import OpenSpillFile
from tidegate.wire.jsonl import LineSplitter, oversize_problem, read_line
from tidegate.wire.lines import Line

SLICE_LINES = 256
# Other tasks may run after this much work, about 3 ms. A line weighs `LINE_WEIGHT` plus its bytes.
SLICE_WEIGHT = 2**20
LINE_WEIGHT = 2**12
# Ends the model at the start of a key; models and prompts contain no such byte.
MODEL_END = b"\0"
_NUMBER_BYTES = 4

# Gets every line that is not blank: its number, its bytes (None: too long), its content or problem.
LineListener = Callable[[int, bytes | None, Line | Problem], None]


class ProblemSink(Protocol):
    """Collects the problems of single lines."""

    def add(self, problem: Problem) -> None:
        """Add a problem of one line, not in the order of lines."""


class InputValidation:
    """Validates one file for one endpoint; `stack` closes the files that this opens.

    `lines` holds a key (model, prompt and number) and the place in `records` of each valid line. If
    `served` is given, lines for other models are problems. If `source` is given, valid lines are
    read from it again, and none is written to a spill file.
    """

    def __init__(  # noqa: PLR0913 -- its rules, given once
        self,
        settings: Planning,
        open_spill_file: OpenSpillFile,
        stack: ExitStack,
        *,
        endpoint: str,
        problems: ProblemSink,
        source: InputFile | None = None,
        served: frozenset[str] | None = None,
        on_line: LineListener | None = None,
    ) -> None:
        self._settings = settings
        self._open_spill_file = open_spill_file
        self._endpoint = endpoint
        self._problems = problems
        self._served = served
        self._on_line = on_line
        self._found = 0
        self._models: dict[str, bytes] = {}
        # Only keys and places are sorted: the lines themselves may be large.
        self.records: RecordStore = (
            SpilledRecords(open_spill_file, stack) if source is None else SourceRecords(source)
        )
        self.lines = stack.enter_context(self._sorter())
        self._names = DuplicateIdFinder(stack.enter_context(self._sorter()), open_spill_file, stack)

    def _sorter(self) -> ExternalSorter:
        return ExternalSorter(
            self._open_spill_file,
            run_bytes_max=self._settings.run_bytes_max,
            run_items_max=self._settings.run_lines_max,
        )

    @property
    def found(self) -> int:
        """How many lines were found that are not blank."""
        return self._found

    async def read(self, pieces: AsyncIterator[bytes]) -> None:
        """Validate every line of the input, which comes in pieces of any size."""
        splitter = LineSplitter(self._settings.line_bytes_max)
        async for piece in pieces:
            await self._take(splitter, splitter.feed(piece))
        await self._take(splitter, splitter.finish())

    async def _take(
        self, splitter: LineSplitter, found: Iterator[tuple[int, bytes | None]]
    ) -> None:
        weight = 0
        for number, raw in found:
            weight += LINE_WEIGHT if raw is None else LINE_WEIGHT + len(raw)
            if self.take(number, raw, splitter.offset) or weight >= SLICE_WEIGHT:
                weight = 0
                await asyncio.sleep(0)
        await asyncio.sleep(0)

    def take(self, number: int, raw: bytes | None, offset: int = 0) -> bool:
        """Validate one line that is not blank; `raw` is None if it is too long.

        `offset` is where it begins in the source, if there is one. Return True if this wrote
        sorted lines to disk, which is slow.
        """
        self._found += 1
        if self._found > self._settings.lines_max:
            return False
        if raw is None:
            line: Line | Problem = oversize_problem(number, self._settings.line_bytes_max)
        else:
            line = read_line(number, raw, endpoint=self._endpoint)
            if type(line) is Line and self._served is not None and line.model not in self._served:
                line = _no_model(line)
        if self._on_line is not None:
            self._on_line(number, raw, line)
        if isinstance(line, Problem):
            self._problems.add(line)
            return False
        assert raw is not None, "a valid line without bytes"
        return self._keep(line, raw, offset)

    def _keep(self, line: Line, raw: bytes, offset: int) -> bool:
        """Add a valid line; return True if sorted lines were written."""
        self._names.add(line.number, line.name)
        model = self._models.get(line.model)
        if model is None:
            model = self._models[line.model] = line.model.encode() + MODEL_END
        key = b"%b%b\0%b" % (model, line.prompt, line.number.to_bytes(_NUMBER_BYTES, "big"))
        return self.lines.add(key, self.records.keep(line, raw, offset))

    async def check_file(self) -> Problem | None:
        """Return the problem of the file as a whole; if there is none, find duplicate custom_ids.

        Call it once, after `read` or the last `take`.
        """
        if self._found == 0:
            return _EMPTY
        if self._found > self._settings.lines_max:
            return too_many(self._found, self._settings.lines_max)
        if len(self._models) > self._settings.models_max:
            return _too_many_models(len(self._models), self._settings.models_max)
        await self._find_duplicates()
        return None

    async def free_space(self) -> None:
        """Free scratch space piece by piece; call it last.

        Closing a file of hundreds of megabytes would block for tens of milliseconds.
        """
        for part in (self.records, self.lines, self._names):
            while part.shrink():  # noqa: ASYNC110 -- lets other tasks run; waits for nothing
                await asyncio.sleep(0)

    async def _find_duplicates(self) -> None:
        suspected = False
        for suspect in self._names.suspects():
            suspected = suspected or suspect
            await asyncio.sleep(0)
        if not suspected:
            return
        for index, number in enumerate(self._names.duplicates()):
            if number is not None:
                self._problems.add(_duplicate(number))
            if number is None or index % SLICE_LINES == 0:
                await asyncio.sleep(0)


_EMPTY = Problem(
    code="empty_file",
    message="The input file is empty. Please ensure that the batch contains at least one request.",
)


def too_many(found: int, lines_max: int) -> Problem:
    """Return the problem of a file with too many lines."""
    return Problem(
        code="too_many_tasks",
        message=f"The file has {found} requests; a batch takes {lines_max} at most. Split it.",
    )


def _too_many_models(found: int, models_max: int) -> Problem:
    return Problem(
        code="too_many_models",
        message=f"The file names {found} models; a batch takes {models_max} at most. Split it.",
    )


def _no_model(line: Line) -> Problem:
    return Problem(
        code="model_not_found",
        message=f"The provided model '{line.model}' is not supported by the Batch API.",
        line=line.number,
        param="body.model",
    )


def _duplicate(number: int) -> Problem:
    return Problem(
        code="duplicate_custom_id",
        message=(
            "The custom_id for this request is a duplicate of another request. "
            "Each request of a batch needs a different custom_id."
        ),
        line=number,
        param="custom_id",
    )
