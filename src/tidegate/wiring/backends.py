"""Open the ledger, the blobs and the pubsub of the kinds that the settings name.

Another package provides a kind by an entry point in `tidegate.stores`, `tidegate.blobs` or
`tidegate.pubsub`: a function that takes a `BackendContext` and returns the back-end, not yet open.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tidegate.blobs.base import BlobStore
from tidegate.blobs.filesystem import FilesystemBlobs
from tidegate.blobs.memory import MemoryBlobs
from tidegate.config import Settings
from tidegate.config.kinds import FILESYSTEM, MEMORY, SQLITE, find_entry_point
from tidegate.config.settings import BackendSettings
from tidegate.domain.errors import SettingsInvalid
from tidegate.pubsub.base import PubSub
from tidegate.pubsub.memory import MemoryPubSub
from tidegate.runtime.clock import Clock
from tidegate.stores.base import Store
from tidegate.stores.lanes import ThreadExecutor
from tidegate.stores.memory import MemoryStore
from tidegate.stores.sqlite import SqliteStore

LEDGER_FILE = "ledger.db"
BLOBS_FOLDER = "blobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendContext:
    """What a back-end is made from; `options` are its settings, passed through unread."""

    options: Mapping[str, object]
    data_dir: Path
    clock: Clock


Factories = Mapping[str, Callable[[BackendContext], object]]

_STORES: Factories = {
    MEMORY: lambda context: MemoryStore(context.clock),
    SQLITE: lambda context: SqliteStore(
        context.data_dir / LEDGER_FILE, context.clock, ThreadExecutor()
    ),
}
_BLOBS: Factories = {
    MEMORY: lambda _: MemoryBlobs(),
    FILESYSTEM: lambda context: FilesystemBlobs(context.data_dir / BLOBS_FOLDER),
}
_PUBSUB: Factories = {MEMORY: lambda _: MemoryPubSub()}


def open_store(settings: Settings, clock: Clock) -> Store:
    """Return the configured ledger; `async with` opens it.

    Raises:
        SettingsInvalid: no installed package provides its kind.
    """
    made = _made("store", settings.store, _STORES, settings.data_dir, clock)
    if not isinstance(made, Store):
        raise _not_a("Store", "store", settings.store)
    return made


def open_blobs(settings: Settings, clock: Clock) -> BlobStore:
    """Return the configured blob store.

    Raises:
        SettingsInvalid: no installed package provides its kind.
    """
    made = _made("blobs", settings.blobs, _BLOBS, settings.data_dir, clock)
    if not isinstance(made, BlobStore):
        raise _not_a("BlobStore", "blobs", settings.blobs)
    return made


def open_pubsub(settings: Settings, clock: Clock) -> PubSub:
    """Return the configured pubsub.

    Raises:
        SettingsInvalid: no installed package provides its kind.
    """
    made = _made("pubsub", settings.pubsub, _PUBSUB, settings.data_dir, clock)
    if not isinstance(made, PubSub):
        raise _not_a("PubSub", "pubsub", settings.pubsub)
    return made


def _made(
    family: str, chosen: BackendSettings, ours: Factories, data_dir: Path, clock: Clock
) -> object:
    context = BackendContext(options=chosen.options, data_dir=data_dir, clock=clock)
    point = find_entry_point(family, chosen.kind)
    if point is None:
        return ours[chosen.kind](context)
    made: object = point.load()(context)
    return made


def _not_a(port: str, family: str, chosen: BackendSettings) -> SettingsInvalid:
    return SettingsInvalid(
        f"The package that provides {family}.kind '{chosen.kind}' returned no {port}: report this "
        "to its authors."
    )
