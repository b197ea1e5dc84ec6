"""What every duty of the collector has: tools, and two verbs."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.blobs.base import BlobStore
from tidegate.collector.observer import NullObserver, Observer
from tidegate.collector.pace import Pace
from tidegate.collector.report import Report
from tidegate.collector.settings import Settings
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.stores.base import Store


class OrphanFinalizer(Protocol):
    """Ends batches as a processor does: the same claims, the same lines, the same files."""

    async def end_all(self, is_stopping: Callable[[], bool]) -> None:
        """Work until nothing is left to end, a processor lives, nothing changes, or it has to stop.

        Raises:
            TidegateError: the disk can't be trusted any more.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectorContext:
    """What the wiring gives to a collector."""

    store: Store
    blobs: BlobStore
    clock: Clock
    ids: IdMaker
    ender: OrphanFinalizer
    observer: Observer = field(default_factory=NullObserver)


class Duty(ABC):
    """One kind of upkeep. Both verbs go on until nothing is left, in bounded pieces."""

    def __init__(self, settings: Settings, tools: CollectorContext, pace: Pace) -> None:
        self._settings = settings
        self._tools = tools
        self._pace = pace

    @abstractmethod
    async def plan(self) -> Report:
        """Return what `act` would do now, and change nothing.

        Raises:
            StoreUnavailable: the ledger did not answer.
            StorageFull: there is too little room or memory to look now.
        """

    @abstractmethod
    async def act(self) -> Report:
        """Do it, and return what was done.

        Raises:
            StoreUnavailable: the ledger did not answer; what was begun is safe to do again.
            StorageFull: no room was left; as above.
        """
