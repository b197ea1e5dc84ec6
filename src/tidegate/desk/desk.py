"""The desk: everything that the functions of this room need, in one value."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from tidegate.blobs.base import BlobStore
from tidegate.desk.downloads import Downloads
from tidegate.desk.settings import Settings
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.signals.base import Signals
from tidegate.stores.base import Store


class Models(Protocol):
    """Knows the models that can be asked for."""

    async def list_models(self) -> Sequence[str]:
        """Return the names of the models that are served now, in a stable order.

        Raises:
            UpstreamFault: no model server could say.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The ports and rules behind every request of a user."""

    settings: Settings
    store: Store
    blobs: BlobStore
    signals: Signals
    models: Models
    clock: Clock
    ids: IdMaker
    downloads: Downloads = field(default_factory=Downloads)
