"""One offline run, from the input to the output, on the parts that the wiring opened."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

from tidegate.application.context import Application
from tidegate.domain.batch import Batch, Problem, Status
from tidegate.domain.errors import Refused, StoreUnavailable, TidegateError
from tidegate.offline.export import Exporter
from tidegate.offline.input import (
    TENANT,
    check_job,
    find_batch,
    job_endpoint,
    sha256_of,
    start_batch,
)
from tidegate.offline.job import FileFormat, OfflineJob
from tidegate.offline.probe import check_servers
from tidegate.offline.progress import Phase, Progress, Snapshot
from tidegate.offline.state import Finished, RunState, open_state
from tidegate.offline.tables import check_columns
from tidegate.runtime.services import Service, ShutdownRequest, run_together
from tidegate.sorting.spill_file import OpenSpillFile
from tidegate.upstreams.base import Upstream

POLL_SECONDS = 0.25

T = TypeVar("T")


class ProgressView(Protocol):
    """Shows the progress of a run."""

    seconds: float

    def draw(self, snapshot: Snapshot) -> None:
        """Show a snapshot; called every `seconds`, and once at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What a run works with, once its folder exists."""

    app: Application
    processor: Service
    servers: Mapping[str, Upstream]
    open_spill_file: OpenSpillFile


class RunEnd(StrEnum):
    """How a run ended."""

    FINISHED = "finished"  # Every line has its result, and the output is written.
    INVALID = "invalid"  # The input can't be run; nothing was sent.
    INTERRUPTED = "interrupted"  # Stopped; completed lines are kept.


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcome:
    """The result of a run; `batch` is None if none was created."""

    end: RunEnd
    finished: Finished | None = None
    batch: Batch | None = None
    problems: tuple[Problem, ...] = ()


OpenContext = Callable[[RunState, Progress], AbstractAsyncContextManager[RunContext]]


class OfflineRun:
    """One run. It may be stopped at any moment, even killed, and be run again."""

    def __init__(
        self, job: OfflineJob, stops: ShutdownRequest, view: ProgressView, open_context: OpenContext
    ) -> None:
        self._job = job
        self._stops = stops
        self._view = view
        self._open_context = open_context
        self._progress = Progress()
        self._is_started = False

    async def run(self) -> RunOutcome:
        """Do the remaining work.

        Raises:
            Refused: the input, an option or a path can't be used.
            StorageFull: an output can't be written.
            StoreUnavailable: the ledger gave no answer.
            BaseExceptionGroup: the processor died; everything is closed by then.
        """
        check_job(self._job)
        with open_state(self._job) as state:
            async with self._draw_progress():
                outcome = await self._work(state)
            if outcome.end is RunEnd.FINISHED and not self._job.keep_state:
                state.remove()
            return outcome

    async def _work(self, state: RunState) -> RunOutcome:
        sha256 = await self._unless_stopped(sha256_of(self._job))
        if sha256 is None:
            return RunOutcome(end=RunEnd.INTERRUPTED)
        check_columns(self._job)
        state.bind(sha256)
        if state.finished is not None and not state.has_data:
            return RunOutcome(end=RunEnd.FINISHED, finished=state.finished)
        try:
            async with self._open_context(state, self._progress) as context:
                outcome = await self._run_batch(context, state, sha256)
        except Refused:
            if not self._is_started:
                # There is nothing to continue: the user must fix the input first.
                state.clear()
            raise
        if outcome.end is RunEnd.INVALID:
            state.clear()
        return outcome

    async def _run_batch(self, context: RunContext, state: RunState, sha256: str) -> RunOutcome:
        batch = await find_batch(context.app)
        self._is_started = batch is not None
        if batch is None or not batch.is_terminal:
            await self._unless_stopped(self._check_servers(context))
        if batch is None:
            batch = await self._unless_stopped(start_batch(context.app, self._job, sha256))
        if batch is None:
            return RunOutcome(end=RunEnd.INTERRUPTED)
        self._is_started = True
        batch = await self._process_batch(context, batch)
        if batch.status is Status.FAILED:
            return RunOutcome(end=RunEnd.INVALID, batch=batch, problems=batch.problems)
        if not batch.is_terminal:
            return RunOutcome(end=RunEnd.INTERRUPTED, batch=batch)
        self._progress.phase = Phase.WRITING
        finished = await self._unless_stopped(self._export(context, batch, sha256))
        if finished is None:
            return RunOutcome(end=RunEnd.INTERRUPTED, batch=batch)
        state.finish(finished)
        return RunOutcome(end=RunEnd.FINISHED, finished=finished, batch=batch)

    async def _check_servers(self, context: RunContext) -> None:
        if self._job.checks_server:
            endpoint = await job_endpoint(context.app, self._job)
            await check_servers(context.servers, endpoint)

    async def _process_batch(self, context: RunContext, batch: Batch) -> Batch:
        """Run the processor until the batch has ended or a stop is asked for."""
        batch = await self._get_batch(context, batch)
        if batch.is_terminal:
            return batch
        # The processor is stopped in the same way whether the batch ended or the user asked.
        ending = ShutdownRequest()

        async def watch() -> None:
            while not (await self._get_batch(context, batch)).is_terminal:
                with suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await self._stops.requested.wait()
                        self._progress.phase = Phase.STOPPING
                        break
            ending.request()
            await self._stops.forced.wait()
            ending.request()

        async with asyncio.TaskGroup() as group:
            watcher = group.create_task(watch(), name="watch over the batch")
            await run_together({"processor": context.processor}, {}, ending)
            watcher.cancel()
        return await self._get_batch(context, batch)

    async def _get_batch(self, context: RunContext, batch: Batch) -> Batch:
        try:
            seen = await context.app.store.get_batch(TENANT, batch.id)
        except StoreUnavailable:
            return batch
        self._progress.update(seen, asyncio.get_running_loop().time())
        return seen

    async def _export(self, context: RunContext, batch: Batch, sha256: str) -> Finished:
        if self._job.file_format is not FileFormat.JSONL and await sha256_of(self._job) != sha256:
            raise Refused(f"{self._job.source} was changed meanwhile: restore it to continue.")
        exporter = Exporter(app=context.app, job=self._job, open_spill_file=context.open_spill_file)
        await exporter.export(batch)
        errors = self._job.errors_file
        return Finished(
            total=batch.counts.total,
            completed=batch.counts.completed,
            failed=batch.counts.failed,
            input_tokens=batch.usage.input_tokens,
            output_tokens=batch.usage.output_tokens,
            errors=str(errors) if errors is not None and batch.counts.failed else None,
        )

    async def _unless_stopped(self, work: Coroutine[None, None, T]) -> T | None:
        """Return the result of the work; None if a stop came first and cancelled it."""
        if self._stops.requested.is_set():
            work.close()
            return None
        found: list[T] = []
        errors: list[TidegateError] = []

        async def worked() -> None:
            try:
                found.append(await work)
            except TidegateError as error:
                # It must reach the caller itself, not inside a group.
                errors.append(error)

        async with asyncio.TaskGroup() as group:
            task = group.create_task(worked(), name="work that a stop cancels")
            stop = group.create_task(self._stops.requested.wait(), name="stop")
            await asyncio.wait([task, stop], return_when=asyncio.FIRST_COMPLETED)
            task.cancel()
            stop.cancel()
        if errors:
            raise errors[0]
        return found[0] if found else None

    @asynccontextmanager
    async def _draw_progress(self) -> AsyncIterator[None]:
        """Draw while the block runs, and once more at its end."""

        async def draw() -> None:
            while True:
                await asyncio.sleep(self._view.seconds)
                self._view.draw(self._progress.snapshot())

        error: TidegateError | None = None
        async with asyncio.TaskGroup() as group:
            drawer = group.create_task(draw(), name="view")
            try:
                yield
            except TidegateError as raised:
                error = raised
            finally:
                drawer.cancel()
        if error is not None:
            raise error
        self._view.draw(self._progress.snapshot())
