"""One connection: bytes in become calls, one after the other; every wait and buffer has a bound."""

import asyncio
import math
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import Protocol

import httptools
from typing_extensions import override

from tidegate.simulator.requests.refusal import Refused, by_status
from tidegate.simulator.web import replies
from tidegate.simulator.web.call import Call

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 16 << 20
PIPELINED_MAX = 16
PIPELINED_BYTES_MAX = 1 << 20
UNSENT_BYTES_MAX = 64 * 1024
LINGER_BYTES_MAX = 1 << 20
LINGER_SECONDS = 1.0

_MALFORMED = Refused("Invalid HTTP request received.", kind="Bad Request")
_LARGE_HEAD = by_status(
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
    f"The head of the request has more than {HEAD_BYTES_MAX} bytes.",
)
_LARGE_BODY = by_status(
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body has more than {BODY_BYTES_MAX} bytes."
)
_NEVER = math.inf
_LENGTH_DIGITS = len(str(BODY_BYTES_MAX))


class Hall(Protocol):
    """What a connection needs of the server."""

    head_seconds: float
    body_seconds: float
    idle_seconds: float
    stall_seconds: float
    is_stopping: bool

    def entered(self, connection: "Connection") -> bool:
        """Count a connection in; False if there is no room for it."""

    def left(self, connection: "Connection") -> None:
        """Count a connection out."""

    def handle(self, call: Call) -> None:
        """Answer a call, now or later."""


class Connection(asyncio.Protocol):
    """Speaks HTTP/1.1 with one client.

    A client may send its next request before the reply to this one: it waits, and who sends more
    ahead than `PIPELINED_MAX` requests or `PIPELINED_BYTES_MAX` of bodies is dropped. What a
    reader does not take is kept up to `UNSENT_BYTES_MAX` and a write; then `is_stalled` is set, and
    after the stall's time it is dropped.

    Attributes:
        deadline: when, by the loop's time, `expire` is due.
        is_stalled: whether the reader is behind.
    """

    def __init__(self, hall: Hall, clock: Callable[[], float]) -> None:
        self.deadline = _NEVER
        self.is_stalled = False
        self._hall = hall
        self._clock = clock
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._call: Call | None = None
        self._ahead: deque[Call] = deque()
        self._ahead_bytes = 0
        self._head_bytes = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._body_bytes = 0
        self._is_reading = False
        self._refusal: Refused | None = None
        self._passed_over = -1

    # The transport's side

    @override
    def connection_made(  # type: ignore[override]  # a stream's transport is always of this kind
        self, transport: asyncio.Transport
    ) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=UNSENT_BYTES_MAX)
        self.deadline = self._clock() + self._hall.head_seconds
        if not self._hall.entered(self):
            # At once, without lingering: it may not hold what there is too little of.
            refusal = by_status(HTTPStatus.SERVICE_UNAVAILABLE, "No connection is left.")
            self._passed_over = 0
            transport.write(replies.whole(refusal.status, refusal.body, closes=True))
            transport.close()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.deadline = _NEVER
        self._ahead.clear()
        self._hall.left(self)
        call, self._call = self._call, None
        if call is not None:
            call.hung_up()

    @override
    def pause_writing(self) -> None:
        self.is_stalled = True
        self.deadline = self._clock() + self._hall.stall_seconds

    @override
    def resume_writing(self) -> None:
        self.is_stalled = False
        self._set_deadline()
        if self._call is not None and self._call.work is not None:
            self._call.work.flowing()

    @override
    def data_received(self, data: bytes) -> None:
        if self._passed_over >= 0:
            self._passed_over += len(data)
            if self._passed_over > LINGER_BYTES_MAX and self._transport is not None:
                self._transport.abort()
            return
        # Heads are counted by their reads: the end of one is seen in its last read only.
        if not self._body_bytes:
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._refuse(self._refusal or _MALFORMED)
            return
        if self._is_reading and not self._headers_done and self._head_bytes > HEAD_BYTES_MAX:
            self._refuse(_LARGE_HEAD)
            return
        if self._call is None:
            self._begin_next()

    def expire(self) -> None:
        """End what took too long: a head, a body, a stalled reader, or an idle connection."""
        self.deadline = _NEVER
        if self._transport is None:
            return
        if self._call is not None or self._passed_over >= 0:
            self._transport.abort()
        elif self._is_reading:
            self._refuse(by_status(HTTPStatus.REQUEST_TIMEOUT))
        else:
            self._transport.close()

    def stop(self) -> None:
        """Close once nothing is due any more."""
        if self._call is None and not self._is_reading and self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close now."""
        if self._transport is not None:
            self._transport.abort()

    # The parser's side

    _headers_done = False

    def on_message_begin(self) -> None:
        """Begin a request."""
        self._url = b""
        self._headers = {}
        self._body = []
        self._body_bytes = 0
        self._headers_done = False
        self._is_reading = True
        if self._call is None:
            self.deadline = self._clock() + self._hall.head_seconds

    def on_url(self, url: bytes) -> None:
        """Take a piece of the target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        """Take the end of the head."""
        self._headers_done = True
        # Only where so much was read at all: most heads come in one small read.
        if self._head_bytes > HEAD_BYTES_MAX and self._head_size() > HEAD_BYTES_MAX:
            self._fail(_LARGE_HEAD)
        length = self._headers.get(b"content-length")
        if length is not None and (len(length) > _LENGTH_DIGITS or int(length) > BODY_BYTES_MAX):
            self._fail(_LARGE_BODY)
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._call is None:
            self.send(replies.CONTINUE)

    def _head_size(self) -> int:
        return len(self._url) + sum(len(name) + len(value) for name, value in self._headers.items())

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body_bytes += len(body)
        if self._body_bytes > BODY_BYTES_MAX:
            self._fail(_LARGE_BODY)
        self._body.append(body)
        if self._call is None:
            self.deadline = self._clock() + self._hall.body_seconds

    def on_message_complete(self) -> None:
        """Take the end of a request."""
        self._is_reading = False
        self._head_bytes = 0
        parser = self._parser
        call = Call(
            self,
            method=parser.get_method().decode("ascii"),
            path=_path_of(self._url),
            query=self._url.partition(b"?")[2].decode("latin-1"),
            headers=self._headers,
            body=self._body[0] if len(self._body) == 1 else b"".join(self._body),
            keeps_alive=parser.should_keep_alive(),
            is_framed=parser.get_http_version() == "1.1",
        )
        self._body = []
        self._ahead_bytes += self._body_bytes
        self._body_bytes = 0
        self._ahead.append(call)
        waiting = len(self._ahead) - (self._call is None)
        if waiting > PIPELINED_MAX or (waiting and self._ahead_bytes > PIPELINED_BYTES_MAX):
            self._fail(by_status(HTTPStatus.TOO_MANY_REQUESTS, "Too many requests were pipelined."))

    # The call's side

    def send(self, data: bytes) -> None:
        """Send bytes; the transport keeps what the reader does not take yet."""
        if self._transport is not None:
            self._transport.write(data)

    def done(self, *, closes: bool) -> None:
        """Go on with the next request, or close."""
        self._call = None
        if self._transport is None:
            return
        if closes or self._hall.is_stopping:
            self._ahead.clear()
            self._passed_over = 0
            self._transport.close()
            return
        self._set_deadline()
        if self._ahead:
            asyncio.get_running_loop().call_soon(self._begin_next)

    def _begin_next(self) -> None:
        if self._call is None and self._ahead and self._transport is not None:
            call = self._call = self._ahead.popleft()
            self._ahead_bytes -= len(call.body)
            if not self.is_stalled:
                self.deadline = _NEVER
            self._hall.handle(call)

    def _set_deadline(self) -> None:
        if self.is_stalled:
            return
        if self._call is not None:
            self.deadline = _NEVER
        elif self._is_reading:
            self.deadline = self._clock() + self._hall.body_seconds
        else:
            self.deadline = self._clock() + self._hall.idle_seconds

    def _fail(self, refusal: Refused) -> None:
        """Leave the parser from within; `data_received` then answers."""
        self._refusal = refusal
        raise ValueError(refusal)

    def _refuse(self, refusal: Refused) -> None:
        """Answer what can't be read further, and close once the client has had time to read it."""
        self._passed_over = 0
        self._ahead.clear()
        transport = self._transport
        if transport is None:
            return
        if self._call is not None:
            transport.abort()  # A reply is due or under way: there is no place for this one.
            return
        transport.write(
            replies.whole(refusal.status, refusal.body, headers=refusal.headers, closes=True)
        )
        # Closing at once would reset the connection while bytes of the client are unread.
        transport.write_eof()
        self.deadline = self._clock() + LINGER_SECONDS


def _path_of(url: bytes) -> str:
    if not url.startswith(b"/"):
        _, _, rest = url.partition(b"://")
        url = b"/" + rest.partition(b"/")[2] if rest else url
    return url.partition(b"?")[0].decode("latin-1")
