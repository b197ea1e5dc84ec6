"""One call on a connection of HTTP/2, and the reply to it as it comes in."""

import math
from collections.abc import Sequence
from typing import Protocol

from tidegate.domain.errors import ReplyBroken, ReplyTooLarge
from tidegate.upstreams.base import Call, Receiver, Reply
from tidegate.upstreams.framing import BODYLESS_STATUSES, body_too_large, check_coding
from tidegate.upstreams.http2.heads import Field, ReplyFields
from tidegate.upstreams.settings import Limits

STATUS_FINAL_MIN = 200


class Carrier(Protocol):
    """The connection, as a call sees it."""

    def drop(self, stream: "Stream") -> None:
        """Hear that nobody waits for this call any more."""
        ...


class Stream:
    """A call under way.

    Attributes:
        number: the number of its stream.
        unsent: what of the body is still to be sent.
        due: the loop's time at which it has waited too long.
        total_due: the loop's time at which it has to be over.
        sent_at: the loop's time at which it began.
        heard: whether anything of a reply came.
    """

    __slots__ = ("_body", "_carrier", "_fields", "_headers", "_interims", "_length", "_limits",
                 "_no_body", "_status", "due", "heard", "number", "receiver", "sent_at",
                 "total_due", "unsent")  # fmt: skip

    def __init__(
        self, number: int, call: Call, receiver: Receiver, carrier: Carrier, fields: ReplyFields,
        limits: Limits,
    ) -> None:  # fmt: skip
        self.number = number
        self.receiver = receiver
        self.unsent = memoryview(call.body)
        self.due = self.total_due = math.inf
        self.sent_at = 0.0
        self.heard = False
        self._carrier = carrier
        self._fields = fields
        self._limits = limits
        self._no_body = call.method == "HEAD"
        self._interims = 0
        self._status = 0
        self._headers: dict[str, str] = {}
        self._length: int | None = None
        self._body = bytearray()

    def abandon(self, receiver: Receiver) -> None:
        """End the call, unless it has ended; the server is told."""
        if self.receiver is receiver:
            self._carrier.drop(self)

    def on_headers(self, fields: Sequence[Field], *, ends: bool) -> Reply | None:
        """Take a block of headers; return the reply once it is whole.

        Raises:
            ReplyBroken: it is not well-formed.
            ReplyTooLarge: a bound was passed.
        """
        if self._status:
            self._fields.headers(fields)  # Trailers are checked and dropped.
            return self._whole()
        status, headers = self._fields.read(fields)
        if status < STATUS_FINAL_MIN:
            self._skip()
            return None
        self._status, self._headers = status, headers
        self._no_body = self._no_body or status in BODYLESS_STATUSES
        if not self._no_body:
            check_coding(headers)
            # h2 has checked that these are digits, and counts what comes in pieces of a body.
            self._length = int(headers["content-length"]) if "content-length" in headers else None
            if self._length is not None and self._length > self._limits.body_bytes_max:
                raise body_too_large(self._limits.body_bytes_max)
        return self._whole() if ends else None

    def on_data(self, data: bytes, *, ends: bool) -> Reply | None:
        """Take a piece of the body; return the reply once it is whole.

        Raises:
            ReplyBroken: there should be none.
            ReplyTooLarge: the body passes its bound.
        """
        assert self._status, "h2 lets no body come before its head"
        if data and self._no_body:
            raise ReplyBroken("The upstream's reply is longer than it said.")
        if len(self._body) + len(data) > self._limits.body_bytes_max:
            raise body_too_large(self._limits.body_bytes_max)
        self._body += data
        return self._whole() if ends else None

    def _whole(self) -> Reply:
        if self._length is not None and len(self._body) != self._length:
            raise ReplyBroken("The upstream's reply is shorter than it said.")
        return Reply(status=self._status, headers=self._headers, body=bytes(self._body))

    def _skip(self) -> None:
        self._interims += 1
        if self._interims > self._limits.interim_replies_max:
            raise ReplyTooLarge(
                f"The upstream sent more than {self._limits.interim_replies_max} interim replies "
                "before its reply (interim_replies_max)."
            )
