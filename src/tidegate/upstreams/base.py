"""The promise of every upstream: one call in, one whole reply or one named fault out.

An upstream never retries by itself once a byte may have reached the server and a byte of the
reply arrived: whether a call is repeated is decided above. Cancelling `send` ends the call and
leaves no connection behind that could deliver its reply to another call.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request. `path` begins with `/v1/`; `headers` are extra ones with lower-case names.

    `body` is sent as it is, byte for byte, as `application/json`.
    """

    path: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole reply. Header names are lower-case; of repeated headers the last one counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


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

    @abstractmethod
    async def aclose(self) -> None:
        """Close every connection. Twice is harmless."""
