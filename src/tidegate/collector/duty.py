"""The base class of the collector's duties, their ports, and their pace.

Duties work in bounded pieces: between two of them other tasks run, and a stop takes effect.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.blobs.base import BlobStore
from tidegate.collector.observer import NullObserver, Observer
from tidegate.collector.report import Report
from tidegate.collector.settings import Settings
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.stores.base import Store

PIECE = 200
PREVIEW_MAX = 10_000


class OrphanFinalizer(Protocol):
    """Ends batches as a processor does: with the same claims, end lines and files."""

    async def end_all(self, is_stopping: Callable[[], bool]) -> None:
        """Work until nothing is left to end, nothing changes, a processor is alive, or it stops.

        Raises:
            TidegateError: the disk can't be trusted any more.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorContext:
    """The ports of a collector, given by wiring."""

    store: Store
    blobs: BlobStore
    clock: Clock
    ids: IdMaker
    orphan_finalizer: OrphanFinalizer
    observer: Observer = field(default_factory=NullObserver)


class Stopped(Exception):
    """The collector has to stop; the next round does the rest. Raised only inside this room."""


class Pace:
    """Called before each piece of work (about `PIECE` rows or blobs)."""

    def __init__(self) -> None:
        self.stopping = False

    async def turn(self) -> None:
        """Let other tasks run.

        Raises:
            Stopped: no further piece may begin.
        """
        await asyncio.sleep(0)
        if self.stopping:
            raise Stopped


class Duty(ABC):
    """One kind of upkeep. Both methods work in bounded pieces until nothing is left."""

    def __init__(self, settings: Settings, context: CollectorContext, pace: Pace) -> None:
        self._settings = settings
        self._context = context
        self._pace = pace

    @abstractmethod
    async def plan(self) -> Report:
        """Return what `act` would do now, without changing anything.

        Raises:
            StoreUnavailable: the ledger did not answer.
            StorageFull: there is too little room or memory to read now.
        """

    @abstractmethod
    async def act(self) -> Report:
        """Do the work, and return what was done.

        Raises:
            StoreUnavailable: the ledger did not answer; it is safe to act again.
            StorageFull: no room was left; it is safe to act again.
        """
