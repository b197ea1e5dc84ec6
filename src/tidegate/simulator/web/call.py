"""One request with its reply: what the application sees of a connection."""

from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, InitVar, dataclass, field
from http import HTTPStatus
from typing import Protocol

from tidegate.simulator.web import replies


class Wire(Protocol):
    """The connection under a call."""

    is_stalled: bool

    def send(self, data: bytes) -> None:
        """Send bytes, or keep them until the reader takes more."""

    def done(self, *, closes: bool) -> None:
        """Record that the reply is complete."""


class Work(Protocol):
    """Work on a call that must learn of its connection."""

    def gone(self) -> None:
        """Record that the client has hung up."""

    def flowing(self) -> None:
        """Record that the reader takes bytes again."""


@dataclass(slots=True, eq=False, repr=False)
class Call:
    """One request, and the way its reply goes.

    Attributes:
        wire: the connection that it came by.
        method: of the request, in capitals.
        path: without the query.
        query: what follows the question mark.
        headers: by lower-case name; of several of one name the last.
        body: whole.
        is_framed: whether a stream goes in frames.
        reply_headers: rows that any reply carries.
        work: is informed of the connection while the reply is due.
        status: of the reply; 0 before it begins.
        reply_bytes: how long its body is, where that is known before it is sent.
        began: when it came, as the counter of calls gave it.
        ended: is called once when there is nothing more to come.
        is_over: whether the reply is complete, or its client is gone.
    """

    wire: Wire
    _: KW_ONLY
    method: str
    path: str
    headers: Mapping[bytes, bytes]
    body: bytes
    keeps_alive: InitVar[bool]
    is_framed: bool
    query: str = ""
    reply_headers: bytes = b""
    work: Work | None = None
    status: int = 0
    reply_bytes: int = 0
    began: float = 0.0
    ended: "Callable[[Call], None] | None" = None
    is_over: bool = False
    _closes: bool = field(init=False)

    def __post_init__(self, keeps_alive: bool) -> None:
        self._closes = not keeps_alive

    @property
    def is_stalled(self) -> bool:
        """Return whether the reader is so far behind that nothing more may be written."""
        return self.wire.is_stalled

    def answer(
        self, status: int, body: bytes, *, kind: bytes = replies.JSON, headers: bytes = b""
    ) -> None:
        """Send the whole reply."""
        if self.is_over:
            return
        self.status, self.reply_bytes = status, len(body)
        data = replies.whole(
            status, body, kind=kind, headers=self.reply_headers + headers, closes=self._closes
        )
        if self.method == "HEAD":
            data = data[: len(data) - len(body)]
        self.wire.send(data)
        self._end()

    def open(self) -> None:
        """Send the head of a stream of events."""
        if not self.is_over:
            self.status = HTTPStatus.OK
            head = replies.stream_head(
                self.reply_headers, closes=self._closes, is_framed=self.is_framed
            )
            self.wire.send(head)

    def write(self, events: bytes) -> None:
        """Send events of a stream."""
        if not self.is_over:
            self.wire.send(replies.frame(events) if self.is_framed else events)

    def framing(self, size: int, before: bytes, after: bytes) -> tuple[bytes, bytes]:
        """Return what stands around bytes of a constant size, with the frame around all of it."""
        if not self.is_framed:
            return before, after
        return b"%x\r\n%b" % (size, before), after + b"\r\n"

    def send_framed(self, data: bytes) -> None:
        """Send bytes that have their frame."""
        self.wire.send(data)

    def close(self, events: bytes = b"") -> None:
        """Send the last events of a stream, and its end."""
        if self.is_over:
            return
        if not self.is_framed:
            self.wire.send(events)
            self._closes = True
        elif events:
            self.wire.send(replies.frame(events) + replies.LAST_FRAME)
        else:
            self.wire.send(replies.LAST_FRAME)
        self._end()

    def cut(self, data: bytes = b"") -> None:
        """Send these bytes as they are, and then close before the reply is complete."""
        if not self.is_over:
            if data:
                self.wire.send(data)
            self._closes = True
            self._end()

    def half(self, body: bytes) -> None:
        """Promise a whole reply, send half of its body, and close."""
        self.status, self.reply_bytes = HTTPStatus.OK, len(body)
        data = replies.whole(200, body, headers=self.reply_headers)
        self.cut(data[: len(data) - (len(body) + 1) // 2])

    def hung_up(self) -> None:
        """Record that the connection is gone."""
        self.is_over = True
        work, self.work = self.work, None
        if work is not None:
            work.gone()
        self._tell_end()

    def _tell_end(self) -> None:
        ended, self.ended = self.ended, None
        if ended is not None:
            ended(self)

    def _end(self) -> None:
        self.is_over = True
        self.work = None
        self._tell_end()
        self.wire.done(closes=self._closes)
