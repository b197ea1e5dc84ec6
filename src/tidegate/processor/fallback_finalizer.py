"""Ends batches where no processor lives: the processor's own way, without a model server.

Whatever is cancelled or past its window needs no model any more, only an end line for each line
without a result. A processor for ends alone claims it, as any other would, under claims and epochs:
one that comes alive meanwhile is no danger to it, nor it to that one.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from tidegate.domain.batch import Batch
from tidegate.domain.errors import StorageFull, StoreUnavailable, TidegateError
from tidegate.processor.context import ProcessorContext
from tidegate.processor.service import Processor

# What the names of its processors begin with.
OWNER_PREFIX = "ender_"
# The oldest so many batches are watched for signs of progress.
WATCHED_MAX = 100
# How long beyond a lease nothing may change: claims of the dead expire within that time.
PATIENCE_SECONDS = 5.0


class FallbackFinalizer:
    """Ends what is left to be ended, whenever it is asked to.

    The owner of the context is what the names of its processors begin with: `OWNER_PREFIX`.
    """

    def __init__(self, context: ProcessorContext) -> None:
        self._context = context

    async def end_all(self, is_stopping: Callable[[], bool]) -> None:
        """Work until nothing is left to end, a processor lives, or `is_stopping` says so.

        What is held by the dead is waited for. It gives up where nothing has changed for a lease
        and `PATIENCE_SECONDS` more, and leaves what it holds within another lease.

        Raises:
            TidegateError: what ends a processor, such as `StorageBroken`.
        """
        processor = self._processor()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(processor.run(), name="ends")
                if await self._watch(is_stopping):
                    processor.stop()
                else:
                    processor.abort()
        except BaseExceptionGroup as died:
            reason = _ours(died)
            if reason is None:
                raise
            raise reason from died

    async def _watch(self, is_stopping: Callable[[], bool]) -> bool:
        """Return True when there is nothing more to do, and False if nothing has changed."""
        loop = asyncio.get_running_loop()
        claims = self._context.settings.claims
        seen: Sequence[Batch] = ()
        changed_at = loop.time()
        while True:
            await asyncio.sleep(claims.poll_seconds)
            try:
                left = await self._left()
            except (StoreUnavailable, StorageFull):
                left = seen
            else:
                if not left:
                    return True
            if is_stopping():
                return True
            if left != seen:
                seen, changed_at = left, loop.time()
            elif loop.time() - changed_at >= claims.lease_seconds + PATIENCE_SECONDS:
                return False

    async def _left(self) -> Sequence[Batch]:
        """Return the oldest batches that are ours to end: none where a processor lives."""
        if await self._context.store.list_members():
            return ()
        return await self._context.store.list_ending(limit=WATCHED_MAX)

    def _processor(self) -> Processor:
        owner = self._context.ids.make(self._context.owner)
        return Processor(replace(self._context, owner=owner, ends_only=True))


def _ours(died: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the error of ours that ended a processor; None if a bug had a part in it."""
    known, other = died.split(TidegateError)
    if known is None or other is not None:
        return None
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
