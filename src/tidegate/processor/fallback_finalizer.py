"""Ends batches while no processor is alive, by a processor that needs no model server.

A batch that is cancelled or past its window needs no model any more, only an end line for each line
without a result. A processor with `ends_only` claims it like any other processor, so another one
that starts meanwhile does no harm.
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
# How many batches, the oldest first, are watched for progress.
WATCHED_MAX = 100
# Give up if nothing changes for a lease and this long: claims of dead processors expire before.
PATIENCE_SECONDS = 5.0


class FallbackFinalizer:
    """Ends all batches that have to end.

    The owner in the context is the prefix of its processors' names: `OWNER_PREFIX`.
    """

    def __init__(self, context: ProcessorContext) -> None:
        self._context = context

    async def end_all(self, is_stopping: Callable[[], bool]) -> None:
        """Work until nothing is left to end, a processor is alive, or `is_stopping` returns True.

        Claims of dead processors are waited for. If nothing changes for a lease and
        `PATIENCE_SECONDS`, give up, and release all claims within another lease.

        Raises:
            TidegateError: an error that ends a processor, such as `StorageBroken`.
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
            reason = _known_error(died)
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
        """Return the oldest batches that have to end; none if a processor is alive."""
        if await self._context.store.list_members():
            return ()
        return await self._context.store.list_ending(limit=WATCHED_MAX)

    def _processor(self) -> Processor:
        owner = self._context.ids.make(self._context.owner)
        return Processor(replace(self._context, owner=owner, ends_only=True))


def _known_error(died: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the `TidegateError` that ended a processor; None if another error was raised too."""
    known, other = died.split(TidegateError)
    if known is None or other is not None:
        return None
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
