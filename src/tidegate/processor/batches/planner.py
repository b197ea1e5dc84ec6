"""From a file of lines to a plan: validate all, sort by model and prompt, cut into shards.

One pass over the input and one over the sorted lines; memory is bounded whatever the size
(PROTOCOL 5 and 6). Between slices of work the event loop gets its turn.
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
from tidegate.planning.sandboxed import InProcessPlanSandbox, PlanningTask, SandboxedPlanner
from tidegate.planning.session import PAUSE_SECONDS, CrashCounter, PlanningSession
from tidegate.planning.settings import UnknownModel
from tidegate.planning.validate import InputValidation
from tidegate.processor.context import ProcessorContext
from tidegate.processor.retrying import retry_until_answered
from tidegate.processor.write_gate import WriteGate
from tidegate.sandbox.base import Sandbox


class Planner:
    """Plans one claimed batch at a time."""

    def __init__(self, context: ProcessorContext, gate: WriteGate) -> None:
        self._context = context
        self._gate = gate
        self._settings = context.settings.planning

    async def plan(self, held: ClaimedBatch) -> Batch:
        """Bring a batch whose window is open from validating to in progress, or to its end.

        Raises:
            ClaimLost: another processor plans it now, or the user cancelled it meanwhile.
            StorageFull: the plan or the scratch files found no room.
            CellNotStarted: it is to be planned in a child process, and there is none to be had.
            BlobMissing: the bytes of the input can't be read, though the ledger holds them.
        """
        context, batch = self._context, held.batch
        if batch.is_cancelling:
            return await self.end(held)
        parts = await retry_until_answered(
            lambda: context.store.get_input(batch.id), context.rng, self._gate
        )
        if parts is None:
            return await self._end(held, [_no_file(batch)])
        served = await self._served()
        if held.crashes >= CRASHES_TO_QUARANTINE:
            return await self._plan_alone(held, parts, served)
        return await self._plan_here(held, parts, served)

    async def _plan_here(
        self, held: ClaimedBatch, parts: tuple[Part, ...], served: frozenset[str] | None
    ) -> Batch:
        context, batch = self._context, held.batch
        source = InputFile(context.blobs, parts)
        with ExitStack() as stack:
            found = FirstProblems(self._settings.errors_max)
            scan = InputValidation(
                self._settings,
                context.make_scratch,
                stack,
                endpoint=batch.endpoint,
                problems=found,
                source=source,
                served=served,
            )
            await scan.read(source.pieces())
            whole = await scan.judge()
            problems = found.listed() if whole is None else [whole]
            if problems:
                return await self._end(held, problems)
            planned = await self._write(held, cut_shards(scan, self._settings))
            await scan.let_go()
            return planned

    async def _plan_alone(
        self, held: ClaimedBatch, parts: tuple[Part, ...], served: frozenset[str] | None
    ) -> Batch:
        """Plan in a child process, for planning this batch may kill (PROTOCOL 20)."""
        context, batch = self._context, held.batch
        task = PlanningTask(planning=self._settings, endpoint=batch.endpoint, served=served)
        source = InputFile(context.blobs, parts)
        deaths = CrashCounter()
        context.observer.on_planning_sandboxed(batch.id)
        while True:
            attempt = PlanningSession(self._open_sandbox(task), self._settings)
            try:
                problems = await attempt.read(source.pieces())
                if problems:
                    return await self._end(held, problems)
                return await self._write(held, attempt.slices())
            except SandboxDied as death:
                context.observer.on_planning_death(batch.id, attempt.place, death)
                problem = deaths.record(attempt)
                if problem is not None:
                    return await self._end(held, [problem])
            finally:
                await attempt.aclose()
            await asyncio.sleep(PAUSE_SECONDS * (0.5 + context.rng.random()))

    def _open_sandbox(self, task: PlanningTask) -> Sandbox:
        if self._context.open_plan_sandbox is not None:
            return self._context.open_plan_sandbox(task)
        return InProcessPlanSandbox(SandboxedPlanner(task, self._context.make_scratch))

    async def end(self, held: ClaimedBatch) -> Batch:
        """End a batch that is cancelled, or past its window, without a plan.

        Raises:
            ClaimLost: it is another's by now, or has a plan.
        """
        return await self._end(held, [])

    async def _served(self) -> frozenset[str] | None:
        """Return the models that are served, where that decides; None where nobody can tell.

        A gateway for any model is asked. One that does not say, or lists nothing, is believed to
        serve whatever it is sent: its own answer is then the line's result.
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

    async def _end(self, held: ClaimedBatch, problems: list[Problem]) -> Batch:
        context = self._context
        at = context.clock.now()
        return await retry_until_answered(
            lambda: context.store.end_unplanned(held.claim, problems=problems, at=at),
            context.rng,
            self._gate,
        )

    async def _write(self, held: ClaimedBatch, found: AsyncGenerator[ShardSlice, None]) -> Batch:
        context = self._context
        name = plan_blob(held)
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
            return await retry_until_answered(
                lambda: context.store.plan_batch(held.claim, plan, at=at), context.rng, self._gate
            )
        except ClaimLost:
            # The answer is certain: no row will ever point to this plan.
            await context.blobs.delete(name)
            raise


def plan_blob(held: ClaimedBatch) -> str:
    """Return the name of the plan that this claim may write; the epoch fences it (PROTOCOL 18)."""
    return PlanBlob(batch_id=held.batch.id, epoch=held.claim.epoch).name


def _no_file(batch: Batch) -> Problem:
    return Problem(
        code="invalid_request",
        message=f"Cannot find file {batch.input_file_id}, or you do not have access to it.",
        param="file_id",
    )
