"""The promise of every upstream: one call in, one whole reply or one named fault out.

An upstream never retries by itself once a byte may have reached the server and a byte of the
reply arrived: whether a call is repeated is decided above. A call that is cancelled or abandoned
ends, and leaves no connection behind that could deliver its reply to another call.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Protocol

import msgspec

from tidegate.domain.errors import ReplyBroken, UpstreamFault

# A call and a reply are made for each line of a batch. A struct costs a tenth of what a frozen
# dataclass does, and without `gc` the collector of cycles, which these can't be part of, passes by.


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


class Unanswered(ReplyBroken):
    """A connection that had served before was closed without one byte of this reply.

    Servers close idle connections when they like: the call may be sent once more, afresh.
    """


class Receiver(Protocol):
    """Who waits for what becomes of a call."""

    def on_reply(self, result: Reply | UpstreamFault) -> None:
        """Take the reply, or the fault in its place. Returns at once and never raises."""
        ...


class Sending(Protocol):
    """A call under way."""

    def abandon(self, receiver: Receiver) -> None:
        """End the call that this receiver waits for; it hears nothing any more.

        Nothing happens where it has heard already: what carries the call may carry another's now.
        """
        ...


class Upstream(ABC):
    """A door to one model server."""

    @abstractmethod
    async def send(self, call: Call) -> Reply:
        """Send a call and read its whole reply, whatever its status.

        Raises:
            ConnectFailed: not one byte was sent.
            TimedOut: a time limit passed.
            ReplyBroken: the connection or the reply broke.
            ReplyTooLarge: a bound was passed.
        """

    async def send_afresh(self, call: Call) -> Reply:
        """Send a call that was `Unanswered` once more, on no connection that has served before.

        Raises:
            UpstreamFault: as from `send`.
        """
        return await self.send(call)

    def begin(self, call: Call, receiver: Receiver) -> Sending | None:
        """Send a call now, if nothing has to be waited for; None if it has: then use `send`.

        This spares the many short calls of a batch a task each. The receiver hears exactly once,
        on the event loop and never before this returns, unless the call is abandoned. It may hear
        `Unanswered`, which `send` never raises.

        Raises:
            UpstreamFault: the call can't be sent at all; not one byte was.
        """
        del call, receiver
        return None

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection. Twice is harmless."""
