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
        """Send a call and read its whole reply, of any status.

        Cancelling it ends the child process; the next call starts a new one.

        Raises:
            SandboxNotStarted: the call was not sent.
            SandboxDied: the child process died, and its answer is lost.
            UpstreamFault: as from any upstream.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """End the child process and wait until it is gone. May be called twice."""


class InProcessSandbox(Sandbox):
    """Sends calls from this process, which a poison line kills.

    For endpoints without child processes.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

    @override
    async def send(self, call: Call) -> Reply:
        return await self._upstream.send(call)

    @override
    async def aclose(self) -> None:
        """Leave the upstream open: others use it too."""
