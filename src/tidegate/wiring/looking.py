"""Looks at what a process would open, for a command that changes nothing."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from tidegate.config import Settings, StoreKind
from tidegate.runtime.clock import Clock
from tidegate.stores.health import LedgerHealth
from tidegate.stores.sqlite.health import look
from tidegate.upstreams.base import Upstream
from tidegate.wiring.rooms import LEDGER_FILE, open_upstreams


def look_at_ledger(settings: Settings, clock: Clock) -> LedgerHealth | None:
    """Return how the ledger stands; None where there is none yet, or it is kept in memory.

    Raises:
        StorageBroken: it is damaged, or no ledger at all.
        StoreUnavailable: it can't be opened or read.
    """
    path = settings.data_dir / LEDGER_FILE
    if settings.store.kind is StoreKind.MEMORY or not path.exists():
        return None
    return look(path, now=clock.now())


@asynccontextmanager
async def opened_upstreams(settings: Settings) -> AsyncIterator[Mapping[str, Upstream]]:
    """Give a client for each model server by its name; they are closed at the end.

    Raises:
        SettingsInvalid: a file of TLS can't be used.
    """
    async with AsyncExitStack() as stack:
        endpoints = open_upstreams(settings, stack)
        yield {name: endpoint.upstream for name, endpoint in endpoints.items()}
