"""How many processors there are, and which of them this one is: the shares of common limits."""

import asyncio
from contextlib import suppress

from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.processor.endpoints import Routes
from tidegate.stores.base import Store


class Census:
    """Counts the living, and gives every endpoint the part that is ours.

    Whoever joins is counted before it claims anything; the others make room within one poll, as
    what they have in flight lands. Who dies is counted for one lease more; who leaves, no more.
    One that takes no part sends nothing, so it needs no part of any limit, and is never counted.
    """

    def __init__(
        self,
        store: Store,
        routes: Routes,
        owner: str,
        *,
        lease_seconds: float,
        takes_part: bool = True,
    ) -> None:
        self._takes_part = takes_part
        self._store = store
        self._routes = routes
        self._owner = owner
        self._lease_seconds = lease_seconds
        self._counted = asyncio.Event()
        if not takes_part:
            self._counted.set()

    async def look(self) -> None:
        """Read who is alive, and take our part of every limit.

        Raises:
            StoreUnavailable: the ledger did not answer; the parts stay as they are.
            StorageFull: we are not counted and can't be now.
        """
        if not self._takes_part:
            return
        living = await self._store.get_living()
        if self._owner not in living:
            # We begin, or were stopped for longer than a lease.
            await self._store.beat(self._owner, lease_seconds=self._lease_seconds)
            living = await self._store.get_living()
        if self._owner not in living:
            return
        now = asyncio.get_running_loop().time()
        self._routes.share(rank=living.index(self._owner), count=len(living), now=now)
        self._counted.set()

    async def wait_until_counted(self) -> None:
        """Return once we were counted, or gave up."""
        await self._counted.wait()

    def give_up(self) -> None:
        """Let nobody wait any longer: nothing will be claimed."""
        self._counted.set()

    async def leave(self) -> None:
        """Be counted no more. Without an answer, the lease sees to it."""
        if not self._takes_part:
            return
        with suppress(StoreUnavailable, StorageFull):
            await self._store.leave(self._owner)
