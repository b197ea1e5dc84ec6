"""Plans a batch: validate all lines, sort them by model and prompt, cut them into shards.

One pass reads the input and one the sorted lines, in bounded memory (PROTOCOL 5 and 6). Between
pieces of work other tasks of the event loop run.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import ExitStack, aclosing

from tidegate.domain.batch import Batch, Problem
from tidegate.domain.blob_names import PlanBlob
from tidegate.domain.errors import ClaimLost, SandboxDied, UpstreamFault
from tidegate.domain.file import Part
from tidegate.domain.ledger.values import ClaimedBatch, Plan
from tidegate.domain.shard import CRASHES_TO_QUARANTINE, ShardPlan
from tidegate.planning.cut_shards import ShardSlice, cut_shards
from tidegate.planning.input_file import InputFile
from tidegate.planning.problems import FirstProblems
from tidegate.planning.sandboxed import PlanningTask, SandboxedPlanner
from tidegate.planning.session import PAUSE_SECONDS, CrashCounter, PlanningSession
from tidegate.planning.settings import UnknownModel
from tidegate.planning.validate import InputValidation
from tidegate.processor.context import ProcessorContext
from tidegate.processor.write_gate import WriteGate
from tidegate.sandbox.base import Sandbox


class Planner:
    """Plans one claimed batch at a time."""

    def __init__(self, context: ProcessorContext, gate: WriteGate) -> None:
        self._context = context
        self._gate = gate
        self._settings = context.settings.planning

    async def plan(self, claimed: ClaimedBatch) -> Batch:
        """Move a batch whose window is open from validating to in progress, or to its end.

        Raises:
            ClaimLost: another processor plans it now, or the user cancelled it meanwhile.
            StorageFull: there is no room for the plan or the scratch files.
            SandboxNotStarted: it has to be planned in a child process, which can't be started.
            BlobMissing: the bytes of the input can't be read.
        """
        context, batch = self._context, claimed.batch
        if batch.is_cancelling:
            return await self.end(claimed)
        parts = await self._gate.retry_until_answered(lambda: context.store.get_input(batch.id))
        if parts is None:
            return await self._end(claimed, [_no_file(batch)])
        served = await self._served()
        if claimed.crashes >= CRASHES_TO_QUARANTINE:
            return await self._plan_in_sandbox(claimed, parts, served)
        return await self._plan_here(claimed, parts, served)

    async def _plan_here(
        self, claimed: ClaimedBatch, parts: tuple[Part, ...], served: frozenset[str] | None
    ) -> Batch:
        context, batch = self._context, claimed.batch
        source = InputFile(context.blobs, parts)
        with ExitStack() as stack:
            found = FirstProblems(self._settings.errors_max)
            validation = InputValidation(
                self._settings,
                context.open_spill_file,
                stack,
                endpoint=batch.endpoint,
                problems=found,
                source=source,
                served=served,
            )
            await validation.read(source.pieces())
            file_problem = await validation.check_file()
            problems = found.listed() if file_problem is None else [file_problem]
            if problems:
                return await self._end(claimed, problems)
            planned = await self._write(claimed, cut_shards(validation, self._settings))
            await validation.free_space()
            return planned

    async def _plan_in_sandbox(
        self, claimed: ClaimedBatch, parts: tuple[Part, ...], served: frozenset[str] | None
    ) -> Batch:
        """Plan in a child process, because planning this batch may kill it (PROTOCOL 20)."""
        context, batch = self._context, claimed.batch
        task = PlanningTask(planning=self._settings, endpoint=batch.endpoint, served=served)
        source = InputFile(context.blobs, parts)
        deaths = CrashCounter()
        context.observer.on_planning_sandboxed(batch.id)
        while True:
            attempt = PlanningSession(self._open_sandbox(task), self._settings)
            try:
                problems = await attempt.read(source.pieces())
                if problems:
                    return await self._end(claimed, problems)
                return await self._write(claimed, attempt.slices())
            except SandboxDied as death:
                context.observer.on_planning_death(batch.id, attempt.place, death)
                problem = deaths.record(attempt)
                if problem is not None:
                    return await self._end(claimed, [problem])
            finally:
                await attempt.aclose()
            await asyncio.sleep(PAUSE_SECONDS * (0.5 + context.rng.random()))

    def _open_sandbox(self, task: PlanningTask) -> Sandbox:
        if self._context.open_plan_sandbox is not None:
            return self._context.open_plan_sandbox(task)
        return SandboxedPlanner(task, self._context.open_spill_file)

    async def end(self, claimed: ClaimedBatch) -> Batch:
        """End a batch that is cancelled, or past its window, without a plan.

        Raises:
            ClaimLost: another processor holds it now, or it has a plan.
        """
        return await self._end(claimed, [])

    async def _served(self) -> frozenset[str] | None:
        """Return the served models if unknown models fail the batch; None accepts any model.

        A default server is asked for its list. If it gives none, it is taken to serve any model,
        and its own reply becomes the line's result.
        """
        if self._settings.unknown_model is not UnknownModel.REJECT_BATCH:
            return None
        if self._context.routes.default is None:
            return frozenset(self._context.routes.by_model)
        try:
            found = await self._context.models.list_models()
        except UpstreamFault:
            return None
        return frozenset(found) or None

    async def _end(self, claimed: ClaimedBatch, problems: list[Problem]) -> Batch:
        context = self._context
        at = context.clock.now()
        return await self._gate.retry_until_answered(
            lambda: context.store.end_unplanned(claimed.claim, problems=problems, at=at)
        )

    async def _write(self, claimed: ClaimedBatch, found: AsyncGenerator[ShardSlice, None]) -> Batch:
        context = self._context
        name = plan_blob(claimed)
        shards: list[ShardPlan] = []
        offset = 0
        async with context.blobs.writer(name) as writer, aclosing(found) as pieces:
            async for piece in pieces:
                await writer.write(piece.data)
                shards.append(
                    ShardPlan(
                        number=len(shards),
                        model=piece.model,
                        offset=offset,
                        length=len(piece.data),
                        lines=piece.lines,
                    )
                )
                offset += len(piece.data)
            await writer.finish()
        plan = Plan(
            blob=name,
            shards=tuple(shards),
            models=tuple(dict.fromkeys(shard.model for shard in shards)),
            total=sum(shard.lines for shard in shards),
            output_file_id=context.ids.make("file-"),
            error_file_id=context.ids.make("file-"),
        )
        at = context.clock.now()
        try:
            return await self._gate.retry_until_answered(
                lambda: context.store.plan_batch(claimed.claim, plan, at=at)
            )
        except ClaimLost:
            # The ledger refused this plan, so no row will ever point to it.
            await context.blobs.delete(name)
            raise


def plan_blob(claimed: ClaimedBatch) -> str:
    """Return the name of the plan that this claim may write; the epoch fences it (PROTOCOL 18)."""
    return PlanBlob(batch_id=claimed.batch.id, epoch=claimed.claim.epoch).name


def _no_file(batch: Batch) -> Problem:
    return Problem(
        code="invalid_request",
        message=f"Cannot find file {batch.input_file_id}, or you do not have access to it.",
        param="file_id",
    )
