"""HTTP/1.1 of one connection, with bounds on request heads, connections and times.

By default uvicorn waits for a head without a time limit, accepts any number of connections, and
answers invalid requests with plain text. Here a client gets the same JSON error as everywhere else.
"""

import asyncio
import json
from dataclasses import dataclass

import uvicorn
from starlette.types import ASGIApp
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tidegate.http_server.limits import ServerTimeouts
from tidegate.http_server.write_timeout import WriteTimeout
from tidegate.runtime.ids import IdMaker

HEADER_BYTES_MAX = 64 * 1024
LINGER_SECONDS = 1.0
LINGER_BYTES_MAX = 2**20
RETRY_SECONDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rejection:
    status: str
    message: str
    kind: str = "invalid_request_error"
    headers: str = ""


_MALFORMED = _Rejection(
    status="400 Bad Request",
    message="This is not valid HTTP/1.1: its method, path, headers or framing can't be read.",
)
_NO_HOST = _Rejection(
    status="400 Bad Request", message="The request has no Host header; HTTP/1.1 asks for one."
)
_TOO_LARGE = _Rejection(
    status="431 Request Header Fields Too Large",
    message=f"The head of the request is larger than {HEADER_BYTES_MAX} bytes; send less.",
)
_TOO_SLOW = _Rejection(
    status="408 Request Timeout",
    message="The head of the request did not come in time; send it again.",
)
_FULL = _Rejection(
    status="503 Service Unavailable",
    message="The server has no connection left. Please try again soon.",
    kind="server_error",
    headers=f"retry-after: {RETRY_SECONDS}\r\n",
)


class BoundedHttpConfig(uvicorn.Config):
    """uvicorn's settings, with our limits of connections."""

    def __init__(
        self, app: ASGIApp, timeouts: ServerTimeouts, ids: IdMaker, *, connections_max: int
    ) -> None:
        self.timeouts = timeouts
        self.connections_max = connections_max
        self.ids = ids
        super().__init__(
            app,
            http=BoundedHttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=timeouts.keep_alive_seconds,
            timeout_graceful_shutdown=timeouts.stop_grace_seconds,
        )


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 with bounds on heads and connections; rejections are JSON errors."""

    _head_bytes = 0
    _in_head = False
    _discarded_bytes = 0
    _rejected = False
    _rejection = _MALFORMED
    _timer: asyncio.TimerHandle | None = None
    _write_timeout: WriteTimeout

    @property
    def _bounded_config(self) -> BoundedHttpConfig:
        config = self.config
        if not isinstance(config, BoundedHttpConfig):
            raise TypeError("BoundedHttpProtocol needs a BoundedHttpConfig.")
        return config

    @override
    def connection_made(  # type: ignore[override]  # uvicorn narrows it likewise
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        config = self._bounded_config
        self._write_timeout = WriteTimeout(self.loop, transport, config.timeouts.reply_idle_seconds)
        if len(self.connections) > config.connections_max:
            # Close without lingering: connections are what we have run out of.
            self.connections.discard(self)
            self._rejected = True
            self._write(_FULL)
            transport.close()
        else:
            self._start_head_timer()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._write_timeout.stop()
        # uvicorn does not cancel the idle timer of a connection that breaks.
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timeout.start()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        # An unread reply must not keep open a connection that is idle or about to close.
        self._write_timeout.start()

    @override
    def data_received(self, data: bytes) -> None:
        if self._rejected:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > LINGER_BYTES_MAX:
                self.transport.abort()
            return
        # Only heads that span several reads are counted here; bodies are not counted.
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEADER_BYTES_MAX:
                self._reject(_TOO_LARGE)
                return
        super().data_received(data)
        self._check_between_requests()

    def _check_between_requests(self) -> None:
        # Bytes between requests end the idle time without beginning a request: blank lines, or the
        # rest of a body that was answered before its end.
        if not self._rejected and self._is_idle() and self.timeout_keep_alive_task is None:
            self._start_head_timer()

    @override
    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()
        self._start_head_timer()

    @override
    def on_headers_complete(self) -> None:
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > HEADER_BYTES_MAX:
            self._rejection = _TOO_LARGE
        elif self.parser.get_http_version() == "1.1" and not any(
            name == b"host" for name, _ in self.headers
        ):
            self._rejection = _NO_HOST
        if self._rejection is not _MALFORMED:
            raise ValueError(self._rejection.message)
        super().on_headers_complete()
        self._stop_timer()

    @override
    def send_400_response(self, msg: str) -> None:
        self._reject(self._rejection)

    def _reject(self, rejection: _Rejection) -> None:
        """Answer with an error and close, after the replies to earlier requests."""
        self._rejected = True
        self._stop_timer()
        self._unset_keepalive_if_required()
        cycle = self.cycle
        if self._is_idle() or (
            cycle.more_body and not cycle.response_started and not self.pipeline
        ):
            self._write(rejection)
            if not self._is_idle():
                cycle.disconnected = True
                cycle.message_event.set()
            # Closing while bytes of the client are unread would reset the connection, and the
            # client would never see the answer. Read and drop its bytes for a moment.
            self.transport.write_eof()
            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
            self._write_timeout.start()
        elif cycle.more_body:
            self.transport.close()
        else:
            cycle.keep_alive = False

    def _write(self, rejection: _Rejection) -> None:
        error = {"message": rejection.message, "type": rejection.kind, "param": None, "code": None}
        body = json.dumps({"error": error}, separators=(",", ":"))
        request_id = self._bounded_config.ids.make("req_")
        head = (
            f"HTTP/1.1 {rejection.status}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nx-request-id: {request_id}\r\n"
            f"{rejection.headers}connection: close\r\n\r\n"
        )
        self.transport.write((head + body).encode("ascii"))

    def _is_idle(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle
        return cycle is None or cycle.response_complete

    def _start_head_timer(self) -> None:
        if self._timer is None:
            seconds = self._bounded_config.timeouts.head_seconds
            self._timer = self.loop.call_later(seconds, self._head_timed_out)

    def _head_timed_out(self) -> None:
        self._timer = None
        if not self._is_idle():
            # We are still replying to an earlier request; the client is not late.
            self._start_head_timer()
        elif self._in_head:
            self._reject(_TOO_SLOW)
        else:
            self.transport.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
