"""Ends batches where no processor lives: the processor's own way, without a model server.

Whatever is cancelled or past its window needs no model any more, only an end line for each line
without a result. A processor for ends alone claims it, as any other would, under claims and epochs:
one that comes alive meanwhile is no danger to it, nor it to that one.
"""

import asyncio
import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tidegate.blobs.base import BlobStore
from tidegate.domain.batch import Batch
from tidegate.domain.errors import StorageFull, StoreUnavailable, TidegateError
from tidegate.processor.endpoints import NoRoutes
from tidegate.processor.keeper import Keeper
from tidegate.processor.observer import Observer
from tidegate.processor.service import Processor, Tools
from tidegate.processor.settings import Settings
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.signals.base import Signals
from tidegate.stores.base import Store
from tidegate.upstreams.catalogue import Catalogue

# What the names of its processors begin with.
ENDER = "ender_"
# The oldest so many batches are watched for signs of progress.
WATCHED_MAX = 100
# How long beyond a lease nothing may change: claims of the dead expire within that time.
PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EnderTools:
    """What the wiring gives to an ender. Each of its processors gets a keeper of its own."""

    store: Store
    blobs: BlobStore
    signals: Signals
    clock: Clock
    ids: IdMaker
    chance: random.Random
    make_keeper: Callable[[], Keeper]
    observer: Observer


class Ender:
    """Ends what is left to be ended, whenever it is asked to."""

    def __init__(self, settings: Settings, tools: EnderTools) -> None:
        self._settings = settings
        self._tools = tools

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
        claims = self._settings.claims
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
        if await self._tools.store.get_living():
            return ()
        return await self._tools.store.list_ending(limit=WATCHED_MAX)

    def _processor(self) -> Processor:
        tools = self._tools
        return Processor(
            self._settings,
            Tools(
                store=tools.store,
                blobs=tools.blobs,
                signals=tools.signals,
                routes=NoRoutes(),
                clock=tools.clock,
                ids=tools.ids,
                chance=tools.chance,
                keeper=tools.make_keeper(),
                observer=tools.observer,
                make_scratch=io.BytesIO,
                models=Catalogue({}, None),
                owner=tools.ids.make(ENDER),
                ends_only=True,
            ),
        )


def _ours(died: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Return the error of ours that ended a processor; None if a bug had a part in it."""
    known, other = died.split(TidegateError)
    if known is None or other is not None:
        return None
    error: BaseException = known
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
