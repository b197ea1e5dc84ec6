"""What wiring gives to a processor: its settings and every port, once."""

import io
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.blobs.base import BlobStore
from tidegate.domain.claim import Claim
from tidegate.domain.errors import StorageFull
from tidegate.processor.endpoints import NoRoutes, Routes
from tidegate.processor.keeper import Keeper
from tidegate.processor.observer import NullObserver, Observer
from tidegate.processor.plan_door import PlanTask
from tidegate.processor.scratch import ScratchMaker
from tidegate.processor.settings import Settings
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.sandbox.base import Cell
from tidegate.signals.base import Signals
from tidegate.stores.base import Store
from tidegate.upstreams.catalogue import Catalogue

OpenPlanCell = Callable[[PlanTask], Cell]


class Models(Protocol):
    """Knows which models the configured servers say that they serve."""

    async def list_models(self) -> Sequence[str]:
        """Return their names.

        Raises:
            UpstreamFault: the server did not say.
        """
        ...


class MakeRenewer(Protocol):
    """Makes the lease renewer of one processor."""

    def __call__(
        self,
        *,
        member: str | None,
        on_lost: Callable[[Claim], None],
        on_full: Callable[[StorageFull], None],
    ) -> Keeper:
        """Return a lease renewer that does not run yet; its arguments are those of `Keeper`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorContext:
    """Settings and ports of one processor.

    Attributes:
        owner: the name of this process start in the ledger; no other one ever had it.
        rng: spreads retries.
        open_plan_cell: opens the child process in which a batch that may kill its planner is
            planned; None plans every batch in this process.
        ends_only: claim only planning and shards of batches that are cancelled or expired, and
            finalizing. Such a processor sends nothing, needs no routes, and is no member.
    """

    settings: Settings
    store: Store
    blobs: BlobStore
    signals: Signals
    clock: Clock
    ids: IdMaker
    rng: random.Random
    owner: str
    make_renewer: MakeRenewer
    observer: Observer = field(default_factory=NullObserver)
    routes: Routes = field(default_factory=NoRoutes)
    models: Models = field(default_factory=lambda: Catalogue({}, None))
    make_scratch: ScratchMaker = io.BytesIO
    open_plan_cell: OpenPlanCell | None = None
    ends_only: bool = False
