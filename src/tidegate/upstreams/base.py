"""The promise of every upstream: one call in, one whole reply or one named fault out.

An upstream never repeats a call of which a byte of the reply has arrived: its caller decides that.
A call that is cancelled or abandoned ends, and its reply never reaches another call.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import msgspec

from tidegate.domain.errors import ReplyBroken, UpstreamFault

# A call and a reply are created for each line of a batch. A struct costs a tenth of a frozen
# dataclass; `gc=False` excludes it from garbage collection, as it can't be part of a cycle.


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One request. `path` begins with `/v1/`; `headers` are extra ones with lower-case names.

    `body` is sent as it is, byte for byte, as `application/json`.
    """

    path: str
    body: bytes
    headers: Mapping[str, str] = msgspec.field(default_factory=dict)
    method: str = "POST"


class Reply(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A whole reply. Header names are lower-case; of repeated headers the last one counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class StaleConnection(ReplyBroken):
    """A connection that was used before was closed without one byte of this reply.

    Servers may close idle connections at any time: the call may be sent again on a new one.
    """


class Receiver(Protocol):
    """Waits for the result of a call."""

    def on_reply(self, result: Reply | UpstreamFault) -> None:
        """Take the reply or the fault of the call. Return immediately and never raise."""


class PendingCall(Protocol):
    """A call under way."""

    def abandon(self, receiver: Receiver) -> None:
        """End the call of this receiver, whose `on_reply` is not called any more.

        Nothing happens if it was called already: the connection may carry another call by now.
        """


class Upstream(ABC):
    """Sends calls to one model server."""

    @abstractmethod
    async def send(self, call: Call) -> Reply:
        """Send a call and read its whole reply, of any status.

        Raises:
            ConnectFailed: no byte was sent.
            TimedOut: a time limit passed.
            ReplyBroken: the connection or the reply broke.
            ReplyTooLarge: a bound was exceeded.
        """

    async def send_on_new_connection(self, call: Call) -> Reply:
        """Send a call that was `StaleConnection` again, on a connection that was not used before.

        Raises:
            UpstreamFault: as from `send`.
        """
        return await self.send(call)

    def begin(self, call: Call, receiver: Receiver) -> PendingCall | None:
        """Send a call if that is possible without waiting; otherwise return None: then use `send`.

        Calls of a batch then need no task each. The receiver is called exactly once, on the event
        loop and never before this returns, unless the call is abandoned. It may get a
        `StaleConnection`, which `send` never raises.

        Raises:
            UpstreamFault: the call can't be sent at all; no byte was sent.
        """
        del call, receiver
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection. May be called twice."""
