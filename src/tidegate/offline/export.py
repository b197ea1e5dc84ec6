"""Writes the results of a batch to the files of the user, with constant memory."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import BinaryIO

from tidegate.access.principal import Principal
from tidegate.application.context import Application
from tidegate.application.files import open_content
from tidegate.domain.batch import Batch
from tidegate.offline.atomic_file import replace_atomically
from tidegate.offline.input import TENANT
from tidegate.offline.job import FileFormat, OfflineJob, ResultOrder
from tidegate.offline.tables import write_table
from tidegate.sorting.external_sort import ExternalSorter
from tidegate.sorting.record_file import RecordFile
from tidegate.sorting.spill_file import OpenSpillFile
from tidegate.wire.jsonl import LineSplitter
from tidegate.wire.read_results import number_of

RUN_BYTES_MAX = 4 * 2**20
RUN_LINES_MAX = 8_192
RESULT_BYTES_MAX = 2**31
SLICE_LINES = 64
_NUMBER_BYTES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """Writes the outputs of one ended batch, each whole or not at all; may be repeated."""

    app: Application
    job: OfflineJob
    open_spill_file: OpenSpillFile

    async def export(self, batch: Batch) -> None:
        """Write the failed lines first, then the output, each in one step.

        Raises:
            StorageFull: a file can't be written.
            Refused: the input, whose columns a table repeats, can't be read any more.
            BlobMissing: results that the ledger lists are lost.
        """
        errors = self.job.errors_file
        if errors is not None:
            if batch.counts.failed:
                with replace_atomically(errors) as file:
                    await self._write_lines(file, batch.error_file_id, batch.error_bytes)
            else:
                errors.unlink(missing_ok=True)
        with replace_atomically(self.job.target) as file:
            if self.job.file_format is FileFormat.JSONL:
                await self._write_lines(file, batch.output_file_id, batch.output_bytes)
            else:
                await self._write_table(file, batch)

    async def _write_lines(self, file: BinaryIO, file_id: str | None, length: int) -> None:
        if self.job.order is ResultOrder.DONE:
            async for piece in self._pieces(file_id, length):
                file.write(piece)
            return
        with ExitStack() as stack:
            results = _Results(self.open_spill_file, stack)
            await self._gather(results, file_id, length)
            for index, (_, line) in enumerate(results.numbered()):
                file.write(line + b"\n")
                if index % SLICE_LINES == 0:
                    await asyncio.sleep(0)

    async def _write_table(self, file: BinaryIO, batch: Batch) -> None:
        with ExitStack() as stack:
            results = _Results(self.open_spill_file, stack)
            await self._gather(results, batch.output_file_id, batch.output_bytes)
            await self._gather(results, batch.error_file_id, batch.error_bytes)
            for index, _ in enumerate(write_table(self.job, file, results.numbered())):
                if index % SLICE_LINES == 0:
                    await asyncio.sleep(0)

    async def _gather(self, results: "_Results", file_id: str | None, length: int) -> None:
        splitter = LineSplitter(RESULT_BYTES_MAX)
        async for piece in self._pieces(file_id, length):
            for _, line in splitter.feed(piece):
                assert line is not None, "a result line above every bound"
                results.add(line)
            await asyncio.sleep(0)
        assert next(splitter.finish(), None) is None, "a result file ends with a newline"

    async def _pieces(self, file_id: str | None, length: int) -> AsyncIterator[bytes]:
        if file_id is None or not length:
            return
        content = await open_content(self.app, Principal(tenant=TENANT), file_id)
        async for piece in content.read(0, content.file.bytes):
            yield piece


class _Results:
    """Result lines on scratch, found by the number of their request: only places are sorted."""

    def __init__(self, open_spill_file: OpenSpillFile, stack: ExitStack) -> None:
        self._records = stack.enter_context(RecordFile(open_spill_file))
        self._places = stack.enter_context(
            ExternalSorter(
                open_spill_file, run_bytes_max=RUN_BYTES_MAX, run_items_max=RUN_LINES_MAX
            )
        )

    def add(self, line: bytes) -> None:
        """Take one line, without its newline."""
        number = number_of(line)
        assert number is not None, "a result line that is not ours"
        place = self._records.add(line)
        self._places.add(number.to_bytes(_NUMBER_BYTES, "big"), place)

    def numbered(self) -> Iterator[tuple[int, bytes]]:
        """Yield the number of each request with its result line, in the order of the input."""
        for key, place in self._places.merged():
            yield int.from_bytes(key, "big"), self._records.get(place)
