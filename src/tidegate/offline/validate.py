"""Checks a batch file by the rules of upload and planning, and summarizes it; runs nothing."""

import asyncio
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

import msgspec

from tidegate.application.settings import Settings as DeskSettings
from tidegate.application.upload_form import Field, FileStart, UploadForm
from tidegate.domain.batch import Problem
from tidegate.domain.errors import Refused
from tidegate.domain.file import Purpose
from tidegate.offline.input import first_url, url_of
from tidegate.offline.job import ENDPOINTS
from tidegate.offline.rows import pieces_of
from tidegate.planning.settings import Planning
from tidegate.planning.validate import SLICE_LINES, InputValidation
from tidegate.sorting.external_sort import ExternalSorter
from tidegate.sorting.spill_file import OpenSpillFile
from tidegate.wire.lines import Line
from tidegate.wire.plan_format import unpack_all
from tidegate.wire.prompts import PLAIN_BYTES, prompt_bytes_covered

NAMES_MAX = 1_000
URL_CHARACTERS_MAX = 256
OTHERS = "(others)"
BYTES_FOR_EACH_TOKEN = 4
TOKENS_MAX = 2**40
_NUMBER_BYTES = 4
_PLACE_BYTES = 5


@dataclass(slots=True, kw_only=True)
class ValidationReport:
    """A summary of a file. Models, prompts and tokens are those of valid lines alone.

    `prompt_bytes` are those that lines are sorted by, at most `PROMPT_BYTES_MAX` of each, and
    beyond the first `PLAIN_BYTES` in whole blocks; `shared_bytes` of them are a prefix that a
    prompt shares with the one before it, in the order in which they would run.
    Tokens are estimated, at `BYTES_FOR_EACH_TOKEN`; `output_tokens_max` is the sum of the bounds
    that lines set, without lines that set none.
    """

    endpoint: str
    lines: int = 0
    sound: int = 0
    problems: int = 0
    models: dict[str, int] = field(default_factory=dict)
    endpoints: dict[str, int] = field(default_factory=dict)
    duplicate_prompts: int = 0
    prompt_bytes: int = 0
    shared_bytes: int = 0
    input_tokens: int = 0
    output_tokens_max: int = 0

    @property
    def shared_prefix(self) -> float:
        """The share of prompt bytes that a prefix cache could save, from 0 to 1."""
        return self.shared_bytes / self.prompt_bytes if self.prompt_bytes else 0.0


class _Weights(msgspec.Struct):
    tools: msgspec.Raw = msgspec.Raw(b"")
    instructions: msgspec.Raw = msgspec.Raw(b"")
    messages: msgspec.Raw = msgspec.Raw(b"")
    prompt: msgspec.Raw = msgspec.Raw(b"")
    input: msgspec.Raw = msgspec.Raw(b"")
    max_tokens: object = None
    max_completion_tokens: object = None
    max_output_tokens: object = None


_decode_weights = msgspec.json.Decoder(_Weights).decode
_decode_problem = msgspec.json.Decoder(Problem).decode


class Validation:
    """Checks one file by the rules of upload and planning. Use it with `with`.

    All problems are kept, on scratch, so memory is bounded for any file.
    """

    def __init__(
        self, app: DeskSettings, planning: Planning, open_spill_file: OpenSpillFile
    ) -> None:
        self._rules = app
        self._planning = planning
        self._open_spill_file = open_spill_file
        self._stack = ExitStack()
        self._count = 0
        self._is_foreign = False
        self._problems = self._stack.enter_context(
            ExternalSorter(
                open_spill_file,
                run_bytes_max=planning.run_bytes_max,
                run_items_max=planning.run_lines_max,
            )
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def add(self, problem: Problem) -> None:
        """Add one problem. If this is not a batch file, only that is reported, not each line."""
        if self._is_foreign:
            return
        self._count += 1
        place = (problem.line or 0).to_bytes(_NUMBER_BYTES, "big")
        self._problems.add(place + problem.code.encode(), msgspec.json.encode(problem))

    def problems(self) -> Iterator[Problem]:
        """Yield every problem by line, after those of the file as a whole. Call it once."""
        return (_decode_problem(record) for _, record in self._problems.merged())

    async def read(self, path: Path, endpoint: str | None = None) -> ValidationReport:
        """Check the file, for this endpoint or that of its first line. Call it once.

        Raises:
            Refused: the file can't be read.
            StorageFull: there is no room for sorting.
        """
        if endpoint is None:
            found = first_url(path)
            endpoint = found if found in self._rules.endpoints else ENDPOINTS["chat"]
        report = ValidationReport(endpoint=endpoint)
        with ExitStack() as stack:
            validation = InputValidation(
                self._planning,
                self._open_spill_file,
                stack,
                endpoint=endpoint,
                problems=self,
                on_line=lambda _number, raw, line: _note(report, raw, line),
            )
            await validation.read(self._pieces(path))
            whole = await validation.check_file()
            if whole is not None:
                self.add(whole)
            await _compare(report, validation)
        report.lines = validation.found
        report.problems = self._count
        return report

    async def _pieces(self, path: Path) -> AsyncIterator[bytes]:
        """Yield the file as an upload reads it; what an upload refuses is added as a problem."""
        form = UploadForm(self._rules)
        form.add_field(Field(name="purpose", value=Purpose.BATCH.value))
        form.start_file(FileStart(filename="input.jsonl"))
        is_refused = False
        for piece in pieces_of(path):
            is_refused = is_refused or self._refuses(form, partial(form.add_bytes, piece))
            if self._is_foreign:
                return
            yield piece
        if not is_refused:
            self._refuses(form, form.finish)

    def _refuses(self, form: UploadForm, step: Callable[[], None]) -> bool:
        """Take a step of an upload; return whether the form refuses the file for it."""
        try:
            step()
        except Refused as refused:
            self.add(Problem(code=refused.code or "invalid_file", message=refused.message))
            self._is_foreign = form.is_foreign
            return True
        return False


def _note(report: ValidationReport, raw: bytes | None, line: Line | Problem) -> None:
    url = url_of(raw)
    note_name(report.endpoints, url and url[:URL_CHARACTERS_MAX])
    if isinstance(line, Problem):
        return
    report.sound += 1
    note_name(report.models, line.model)
    try:
        weights = _decode_weights(line.body)
    except (msgspec.MsgspecError, RecursionError):
        # Lone surrogates: the line is valid, and its size is a usable estimate.
        report.input_tokens += len(line.body) // BYTES_FOR_EACH_TOKEN
        return
    pieces = (weights.tools, weights.instructions, weights.messages, weights.prompt, weights.input)
    report.input_tokens += sum(len(bytes(piece)) for piece in pieces) // BYTES_FOR_EACH_TOKEN
    bounds = (weights.max_tokens, weights.max_completion_tokens, weights.max_output_tokens)
    report.output_tokens_max += max(
        (item for item in bounds if isinstance(item, int) and 0 < item <= TOKENS_MAX), default=0
    )


def note_name(counts: dict[str, int], name: str | None) -> None:
    """Count a name; beyond `NAMES_MAX` different ones count it under `OTHERS`."""
    if name is None:
        return
    if name not in counts and len(counts) >= NAMES_MAX:
        name = OTHERS
    counts[name] = counts.get(name, 0) + 1


async def _compare(report: ValidationReport, validation: InputValidation) -> None:
    """Compare each prompt with the one that would run before it."""
    last_model, last, last_place = b"", b"", b""
    for index, (key, place) in enumerate(validation.lines.merged()):
        model, _, rest = key.partition(b"\0")
        prompt = rest[:-_PLACE_BYTES]
        report.prompt_bytes += prompt_bytes_covered(len(prompt))
        if index and model == last_model:
            report.shared_bytes += prompt_bytes_covered(common_prefix(last, prompt))
            if prompt == last and await _same(validation, prompt, last_place, place):
                report.duplicate_prompts += 1
        last_model, last, last_place = model, prompt, place
        if index % SLICE_LINES == 0:
            await asyncio.sleep(0)


async def _same(validation: InputValidation, prompt: bytes, one: bytes, other: bytes) -> bool:
    """Return whether equal keys mean equal prompts; for long prompts compare the bodies."""
    if len(prompt) <= PLAIN_BYTES:
        return True
    first, second = unpack_all(await validation.records.get_all([one, other]))
    return first.body == second.body


def common_prefix(one: bytes, other: bytes) -> int:
    """Return the length of the common prefix."""
    places = range(min(len(one), len(other)))
    return bisect_left(places, True, key=lambda place: one[: place + 1] != other[: place + 1])
