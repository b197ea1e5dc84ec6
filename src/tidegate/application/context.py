"""Everything that the functions of this room need, in one value."""

from dataclasses import dataclass, field

from tidegate.application.content import Downloads
from tidegate.application.settings import Settings
from tidegate.blobs.base import BlobStore
from tidegate.endpoints.catalogue import ModelLister
from tidegate.pubsub.base import PubSub
from tidegate.runtime.clock import Clock
from tidegate.runtime.ids import IdMaker
from tidegate.stores.base import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Application:
    """The ports and rules behind every request of a user."""

    settings: Settings
    store: Store
    blobs: BlobStore
    pubsub: PubSub
    models: ModelLister
    clock: Clock
    ids: IdMaker
    downloads: Downloads = field(default_factory=Downloads)
