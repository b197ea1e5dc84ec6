"""One connection of the HTTP server: its head has a bound and a time, and rubbish gets an answer.

uvicorn waits for ever for a head, takes any number of connections, and answers what it can't parse
with plain text; here a client finds the same envelope as in every other error.
"""

import asyncio
import json
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tidegate.runtime.identity import IdMaker
from tidegate.runtime.stall import StallWatch

HEADER_BYTES_MAX = 64 * 1024
LINGER_SECONDS = 1.0
LINGER_BYTES_MAX = 2**20
RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Bounds on connections: their number, and seconds for the client.

    It has `head_seconds` from the first wait to a whole head, and `reply_idle_seconds` to take the
    next byte of a reply.
    """

    head_seconds: float
    reply_idle_seconds: float
    connections_max: int
    ids: IdMaker


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    status: str
    message: str
    kind: str = "invalid_request_error"
    headers: str = ""


_MALFORMED = _Refusal(
    status="400 Bad Request",
    message="This is not valid HTTP/1.1: its method, path, headers or framing can't be read.",
)
_NO_HOST = _Refusal(
    status="400 Bad Request", message="The request has no Host header; HTTP/1.1 asks for one."
)
_TOO_LARGE = _Refusal(
    status="431 Request Header Fields Too Large",
    message=f"The head of the request is larger than {HEADER_BYTES_MAX} bytes; send less.",
)
_TOO_SLOW = _Refusal(
    status="408 Request Timeout",
    message="The head of the request did not come in time; send it again.",
)
_FULL = _Refusal(
    status="503 Service Unavailable",
    message="The server has no connection left. Please try again soon.",
    kind="server_error",
    headers=f"retry-after: {RETRY_SECONDS}\r\n",
)


class DoorConfig(uvicorn.Config):
    """uvicorn's settings, with those of the door."""

    def __init__(
        self, app: ASGIApp, door: Door, *, keep_alive_seconds: int, stop_grace_seconds: int
    ) -> None:
        self.door = door
        super().__init__(
            app,
            http=GuardedHttp,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=keep_alive_seconds,
            timeout_graceful_shutdown=stop_grace_seconds,
        )


class GuardedHttp(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on heads and connections, and envelopes for refusals."""

    _head_bytes = 0
    _in_head = False
    _passed_over = 0
    _refused = False
    _refusal = _MALFORMED
    _timer: asyncio.TimerHandle | None = None
    _stall: StallWatch

    @property
    def _door(self) -> Door:
        config = self.config
        if not isinstance(config, DoorConfig):
            raise TypeError("The HTTP protocol needs the settings of its door.")
        return config.door

    @override
    def connection_made(  # type: ignore[override]  # uvicorn narrows it likewise
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        self._stall = StallWatch(self.loop, transport, self._door.reply_idle_seconds)
        if len(self.connections) > self._door.connections_max:
            # At once, without lingering: it may not hold what there is too little of.
            self.connections.discard(self)
            self._refused = True
            self._write(_FULL)
            transport.close()
        else:
            self._await_head()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stall.stop()
        # A broken connection would leave its idle timer behind.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._stall.look()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        # What is left of a reply must not keep a connection that is idle or about to close.
        self._stall.look()

    @override
    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._passed_over += len(data)
            if self._passed_over > LINGER_BYTES_MAX:
                self.transport.abort()
            return
        # Only a head that did not end in earlier reads is counted here: bodies pass untouched.
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_BYTES_MAX:
                self._refuse(_TOO_LARGE)
                return
        super().data_received(data)
        self._check_between_requests()

    def _check_between_requests(self) -> None:
        # Bytes between requests end the idle time without beginning a request: blank lines, or the
        # rest of a body that was answered before its end.
        if not self._refused and self._is_idle() and self.timeout_keep_alive_task is None:
            self._await_head()

    @override
    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()
        self._await_head()

    @override
    def on_headers_complete(self) -> None:
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEADER_BYTES_MAX:
            self._refusal = _TOO_LARGE
        elif self.parser.get_http_version() == "1.1" and not any(
            name == b"host" for name, _ in self.headers
        ):
            self._refusal = _NO_HOST
        if self._refusal is not _MALFORMED:
            raise ValueError(self._refusal.message)
        super().on_headers_complete()
        self._stop_timer()

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refusal)

    def _refuse(self, refusal: _Refusal) -> None:
        """Answer and end the connection, after the replies that are already due."""
        self._refused = True
        self._stop_timer()
        self._unset_keepalive_if_required()
        cycle = self.cycle
        if self._is_idle() or (
            cycle.more_body and not cycle.response_started and not self.pipeline
        ):
            self._write(refusal)
            if not self._is_idle():
                cycle.disconnected = True
                cycle.message_event.set()
            # Closing while bytes of the client are unread would reset the connection, and the
            # client would never see the answer; so they are passed over for a moment.
            self.transport.write_eof()
            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
            self._stall.look()
        elif cycle.more_body:
            self.transport.close()
        else:
            cycle.keep_alive = False

    def _write(self, refusal: _Refusal) -> None:
        error = {"message": refusal.message, "type": refusal.kind, "param": None, "code": None}
        body = json.dumps({"error": error}, separators=(",", ":"))
        head = (
            f"HTTP/1.1 {refusal.status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {self._door.ids.make('req_')}\r\n"
            f"{refusal.headers}connection: close\r\n\r\n"
        )
        self.transport.write((head + body).encode("ascii"))

    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _await_head(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(self._door.head_seconds, self._give_up)

    def _give_up(self) -> None:
        self._timer = None
        if not self._is_idle():
            # A slow reply to an earlier request is no fault of the client.
            self._await_head()
        elif self._in_head:
            self._refuse(_TOO_SLOW)
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
