"""A door for one call at a time, behind which a process may die: for lines in quarantine.

A processor opens one cell for each shard in quarantine (PROTOCOL 20) and closes it with the shard.
"""

from abc import ABC, abstractmethod

from typing_extensions import override

from tidegate.upstreams.base import Call, Reply, Upstream


class Cell(ABC):
    """Carries calls one after the other; a call that meets another one under way waits for it."""

    @abstractmethod
    async def send(self, call: Call) -> Reply:
        """Send a call and read its whole reply, whatever its status.

        Cancelling it ends whatever carries the call; the next call finds a fresh start.

        Raises:
            CellNotStarted: the call was not sent.
            CellDied: whatever carried the call is gone, and an answer with it.
            UpstreamFault: as from any upstream.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End what carries the calls; nothing of it is left after it. Twice is harmless."""


class SharedCell(Cell):
    """Carries calls through a door of this very process, which a deadly line takes with it.

    For endpoints that have no cells of their own.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @override
    async def send(self, call: Call) -> Reply:
        return await self._upstream.send(call)

    @override
    async def aclose(self) -> None:
        """Leave the door open: it belongs to others too."""
