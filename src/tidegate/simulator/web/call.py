"""One request with its reply: what the application sees of a connection."""

from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Protocol

from tidegate.simulator.web import replies


class Wire(Protocol):
    """The connection under a call."""

    is_stalled: bool

    def send(self, data: bytes) -> None:
        """Send bytes, or keep them until the reader takes more."""
        ...

    def done(self, *, closes: bool) -> None:
        """Record that the reply is complete."""
        ...


class Work(Protocol):
    """Work on a call that must learn of its connection."""

    def gone(self) -> None:
        """Record that the client has hung up."""
        ...

    def flowing(self) -> None:
        """Record that the reader takes bytes again."""
        ...


class Call:
    """One request, and the way its reply goes.

    Attributes:
        method: of the request, in capitals.
        path: without the query.
        query: what follows the question mark.
        headers: by lower-case name; of several of one name the last.
        body: whole.
        reply_headers: rows that any reply carries.
        work: is informed of the connection while the reply is due.
        status: of the reply; 0 before it begins.
        reply_bytes: how long its body is, where that is known before it is sent.
        began: when it came, as the counter of calls gave it.
        ended: is called once when there is nothing more to come.
    """

    __slots__ = (
        "_closes",
        "_is_framed",
        "_is_over",
        "_wire",
        "began",
        "body",
        "ended",
        "headers",
        "method",
        "path",
        "query",
        "reply_bytes",
        "reply_headers",
        "status",
        "work",
    )

    def __init__(  # noqa: PLR0913 - what a request consists of
        self,
        wire: Wire,
        *,
        method: str,
        path: str,
        headers: Mapping[bytes, bytes],
        body: bytes,
        keeps_alive: bool,
        is_framed: bool,
        query: str = "",
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.reply_headers = b""
        self.work: Work | None = None
        self.query = query
        self.status = 0
        self.reply_bytes = 0
        self.began = 0.0
        self.ended: Callable[[Call], None] | None = None
        self._wire = wire
        self._closes = not keeps_alive
        self._is_framed = is_framed
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Return whether the reply is complete, or its client is gone."""
        return self._is_over

    @property
    def is_stalled(self) -> bool:
        """Return whether the reader is so far behind that nothing more may be written."""
        return self._wire.is_stalled

    def answer(
        self, status: int, body: bytes, *, kind: bytes = replies.JSON, headers: bytes = b""
    ) -> None:
        """Send the whole reply."""
        if self._is_over:
            return
        self.status, self.reply_bytes = status, len(body)
        data = replies.whole(
            status,
            body,
            kind=kind,
            headers=self.reply_headers + headers,
            closes=self._closes,
        )
        if self.method == "HEAD":
            data = data[: len(data) - len(body)]
        self._wire.send(data)
        self._end()

    def open(self) -> None:
        """Send the head of a stream of events."""
        if not self._is_over:
            self.status = HTTPStatus.OK
            head = replies.stream_head(
                self.reply_headers, closes=self._closes, is_framed=self._is_framed
            )
            self._wire.send(head)

    def write(self, events: bytes) -> None:
        """Send events of a stream."""
        if not self._is_over:
            self._wire.send(replies.frame(events) if self._is_framed else events)

    def framing(self, size: int, before: bytes, after: bytes) -> tuple[bytes, bytes]:
        """Return what stands around bytes of a constant size, with the frame around all of it."""
        if not self._is_framed:
            return before, after
        return b"%x\r\n%b" % (size, before), after + b"\r\n"

    def send_framed(self, data: bytes) -> None:
        """Send bytes that have their frame."""
        self._wire.send(data)

    def close(self, events: bytes = b"") -> None:
        """Send the last events of a stream, and its end."""
        if self._is_over:
            return
        if not self._is_framed:
            self._wire.send(events)
            self._closes = True
        elif events:
            self._wire.send(replies.frame(events) + replies.LAST_FRAME)
        else:
            self._wire.send(replies.LAST_FRAME)
        self._end()

    def cut(self, data: bytes = b"") -> None:
        """Send these bytes as they are, and then close before the reply is complete."""
        if not self._is_over:
            if data:
                self._wire.send(data)
            self._closes = True
            self._end()

    def half(self, body: bytes) -> None:
        """Promise a whole reply, send half of its body, and close."""
        self.status, self.reply_bytes = HTTPStatus.OK, len(body)
        data = replies.whole(200, body, headers=self.reply_headers)
        self.cut(data[: len(data) - (len(body) + 1) // 2])

    def hung_up(self) -> None:
        """Record that the connection is gone."""
        self._is_over = True
        work, self.work = self.work, None
        if work is not None:
            work.gone()
        self._tell_end()

    def _tell_end(self) -> None:
        ended, self.ended = self.ended, None
        if ended is not None:
            ended(self)

    def _end(self) -> None:
        self._is_over = True
        self.work = None
        self._tell_end()
        self._wire.done(closes=self._closes)
