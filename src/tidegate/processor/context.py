"""What wiring gives to a processor: its settings and every port, once."""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.blobs.base import BlobStore
from tidegate.domain.claim import Claim
from tidegate.domain.errors import StorageFull
from tidegate.endpoints.catalogue import Catalogue, ModelLister
from tidegate.endpoints.endpoint import NoRoutes, Routes
from tidegate.planning.sandboxed import PlanningTask
from tidegate.processor.leases.renewer import LeaseRenewer
from tidegate.processor.observer import NullObserver, Observer
from tidegate.processor.settings import Settings
from tidegate.pubsub.base import PubSub
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.sandbox.base import Sandbox
from tidegate.sorting.spill_file import OpenSpillFile
from tidegate.stores.base import Store

OpenPlanSandbox = Callable[[PlanningTask], Sandbox]


class MakeRenewer(Protocol):
    """Makes the lease renewer of one processor."""

    def __call__(
        self,
        *,
        member: str | None,
        on_lost: Callable[[Claim], None],
        on_full: Callable[[StorageFull], None],
    ) -> LeaseRenewer:
        """Return a lease renewer that is not running yet; see `LeaseRenewer` for the arguments."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorContext:
    """Settings and ports of one processor.

    Attributes:
        owner: the name of this process start in the ledger, never used before.
        rng: spreads retries.
        open_plan_sandbox: opens the child process that plans a batch whose planning killed
            processors; None plans every batch in this process.
        ends_only: claim only planning and shards of batches that are cancelled or expired, and
            finalizing. Such a processor sends nothing, needs no routes, and is no member.
    """

    settings: Settings
    store: Store
    blobs: BlobStore
    pubsub: PubSub
    clock: Clock
    ids: IdMaker
    rng: random.Random
    owner: str
    make_renewer: MakeRenewer
    observer: Observer = field(default_factory=NullObserver)
    routes: Routes = field(default_factory=NoRoutes)
    models: ModelLister = field(default_factory=lambda: Catalogue({}, None))
    open_spill_file: OpenSpillFile = io.BytesIO
    open_plan_sandbox: OpenPlanSandbox | None = None
    ends_only: bool = False
