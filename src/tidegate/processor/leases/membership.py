"""How many processors there are, and which of them this one is: the shares of common limits."""

import asyncio
from contextlib import suppress

from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.domain.ledger.values import Poll
from tidegate.processor.context import ProcessorContext


class Membership:
    """Counts the members, and gives every endpoint this processor's part of its limit.

    Whoever joins is counted before it claims anything; the others make room within one poll, as
    what they have in flight lands. Who dies is counted for one lease more; who leaves, no more.
    One that takes no part sends nothing, so it needs no part of any limit, and is never counted.
    """

    def __init__(self, context: ProcessorContext) -> None:
        self._context = context
        self._takes_part = not context.ends_only
        self._counted = asyncio.Event()
        if not self._takes_part:
            self._counted.set()

    def lacks(self, poll: Poll) -> bool:
        """Return whether this processor should be a member, and is none."""
        return self._takes_part and poll.rank is None

    async def join(self) -> None:
        """Become a member.

        Raises:
            StoreUnavailable: the ledger did not answer.
            StorageFull: there is no room to be recorded.
        """
        await self._context.store.renew_membership(
            self._context.owner, lease_seconds=self._context.settings.claims.lease_seconds
        )

    def update(self, poll: Poll) -> None:
        """Take our part of every limit."""
        if self._takes_part and poll.rank is not None:
            now = asyncio.get_running_loop().time()
            self._context.routes.share(rank=poll.rank, count=poll.members, now=now)
            self._counted.set()

    async def wait_until_member(self) -> None:
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
            await self._context.store.leave(self._context.owner)
