"""Inspect what a process would open, for a command that changes nothing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from tidegate.blobs.base import BlobHealth
from tidegate.config import Settings
from tidegate.runtime.clock import Clock
from tidegate.stores.health import StoreHealth
from tidegate.upstreams.base import Upstream
from tidegate.wiring.backends import open_blobs, open_store
from tidegate.wiring.context import open_upstreams


async def inspect_storage(
    settings: Settings, clock: Clock
) -> AsyncIterator[StoreHealth | BlobHealth]:
    """Yield the health of ledger and blobs, without opening or making them.

    Raises:
        StorageBroken: one is damaged, or is not what the settings say.
        StoreUnavailable: the ledger can't be reached or read.
    """
    yield await open_store(settings, clock).health()
    blobs = open_blobs(settings, clock)
    try:
        yield await blobs.health()
    finally:
        await blobs.aclose()


@asynccontextmanager
async def opened_upstreams(settings: Settings) -> AsyncIterator[Mapping[str, Upstream]]:
    """Give a client for each model server by its name; they are closed at the end.

    Raises:
        SettingsInvalid: a file of TLS can't be used.
    """
    async with AsyncExitStack() as stack:
        endpoints = open_upstreams(settings, stack)
        yield {name: endpoint.upstream for name, endpoint in endpoints.items()}
