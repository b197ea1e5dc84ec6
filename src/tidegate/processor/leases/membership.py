"""Membership of this processor, which decides its share of common limits."""

import asyncio
from contextlib import suppress

from tidegate.domain.errors import StorageFull, StoreUnavailable
from tidegate.domain.ledger.values import Poll
from tidegate.processor.context import ProcessorContext


class Membership:
    """Keeps this processor a member, and sets its part of every endpoint's limit.

    A processor is a member before it claims anything; the others reduce their parts within one
    poll, as attempts in flight finish. A dead processor stays a member for one lease; one that
    leaves does not. A processor with `ends_only` sends nothing, so it is never a member.
    """

    def __init__(self, context: ProcessorContext) -> None:
        self._context = context
        self._takes_part = not context.ends_only
        self._counted = asyncio.Event()
        if not self._takes_part:
            self._counted.set()

    def lacks(self, poll: Poll) -> bool:
        """Return whether this processor should be a member, but is not."""
        return self._takes_part and poll.rank is None

    async def join(self) -> None:
        """Become a member.

        Raises:
            StoreUnavailable: the ledger did not answer.
            StorageFull: there is no room for the record.
        """
        await self._context.store.renew_membership(
            self._context.owner, lease_seconds=self._context.settings.claims.lease_seconds
        )

    def update(self, poll: Poll) -> None:
        """Set our part of every limit."""
        if self._takes_part and poll.rank is not None:
            now = asyncio.get_running_loop().time()
            self._context.routes.share(rank=poll.rank, count=poll.members, now=now)
            self._counted.set()

    async def wait_until_member(self) -> None:
        """Wait until this processor is a member, or `give_up` was called."""
        await self._counted.wait()

    def give_up(self) -> None:
        """End every wait for membership, because nothing will be claimed."""
        self._counted.set()

    async def leave(self) -> None:
        """End the membership. If the ledger does not answer, it expires with the lease."""
        if not self._takes_part:
            return
        with suppress(StoreUnavailable, StorageFull):
            await self._context.store.leave(self._context.owner)
