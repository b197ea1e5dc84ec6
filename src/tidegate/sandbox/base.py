"""A sandbox sends one call at a time, in a place that may die: for the lines of a suspect shard.

A processor opens one sandbox for each shard in quarantine (PROTOCOL 20) and closes it with the
shard.
"""

from abc import ABC, abstractmethod

from typing_extensions import override

from tidegate.upstreams.base import Call, Reply, Upstream


class Sandbox(ABC):
    """Sends calls one after the other; a call waits until the one before it has ended."""

    @abstractmethod
    async def send(self, call: Call) -> Reply:
        """Send a call and read its whole reply, whatever its status.

        Cancelling it ends the child process; the next call starts a new one.

        Raises:
            CellNotStarted: the call was not sent.
            CellDied: the child process died, and its answer is lost.
            UpstreamFault: as from any upstream.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End the child process and wait until it is gone. Twice is harmless."""


class InProcessSandbox(Sandbox):
    """Sends calls from this very process, which a poison line kills.

    For endpoints that have no sandbox of their own.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @override
    async def send(self, call: Call) -> Reply:
        return await self._upstream.send(call)

    @override
    async def aclose(self) -> None:
        """Leave the upstream open: others use it too."""
