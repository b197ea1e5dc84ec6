"""The outermost layer: every request gets an id, and every error an envelope."""

import re
from collections.abc import Callable, Mapping
from typing import Protocol

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate.api.errors import ClientGone, render
from tidegate.api.responses import json_reply, send_reply
from tidegate.domain.errors import StorageBroken, StorageFull, StoreUnavailable, UpstreamFault
from tidegate.runtime.ids import IdMaker
from tidegate.telemetry.logs import REQUEST_CRASHED, STORAGE_BROKEN, STORAGE_FULL, STORE_UNAVAILABLE

REQUEST_ID_HEADER = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_EVENTS = (
    (StoreUnavailable, STORE_UNAVAILABLE),
    (StorageFull, STORAGE_FULL),
    (StorageBroken, STORAGE_BROKEN),
)


class ErrorLog(Protocol):
    """A log for our own errors; each is reported once."""

    def error(self, event: str, **fields: object) -> object:
        """Record an event with its fields; `exc_info` is an exception."""


class ErrorResponses:
    """Adds `x-request-id` to each response, and turns every exception into an error response.

    Args:
        app: what answers.
        ids: makes ids for requests that bring none.
        log: is called with every error that is ours.
        on_storage_broken: called when durability is lost, so that the process can end.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        ids: IdMaker,
        log: ErrorLog,
        on_storage_broken: Callable[[StorageBroken], None] | None = None,
    ) -> None:
        self._app = app
        self._ids = ids
        self._log = log
        self._on_storage_broken = on_storage_broken

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; an exception becomes an error response."""
        if scope["type"] == "lifespan":
            await _live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).get(REQUEST_ID_HEADER, "")
        request_id = given if _REQUEST_ID.fullmatch(given) else self._ids.make("req_")
        started = False

        async def send_marked(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                mark = (REQUEST_ID_HEADER.encode(), request_id.encode())
                message = {**message, "headers": [*message["headers"], mark]}
            await send(message)

        try:
            await self._app(scope, receive, send_marked)
        except ClientGone:
            return
        except Exception as exc:  # noqa: BLE001  # the edge: an unforeseen error is an answer too
            rendered = render(exc)
            # The processor's own metrics report a model server that does not answer.
            if (rendered.is_ours or started) and not isinstance(exc, UpstreamFault):
                self._tell(exc, scope, request_id)
            # Once the head of a reply is out, ending without the rest breaks the connection off,
            # which is the only way left to say that something went wrong.
            if not started:
                headers: Mapping[str, str] = rendered.headers
                reply = json_reply(rendered.body, status=rendered.status, headers=headers)
                await send_reply(reply, scope, receive, send_marked)

    def _tell(self, error: Exception, scope: Scope, request_id: str) -> None:
        self._log.error(
            next((event for kind, event in _EVENTS if isinstance(error, kind)), REQUEST_CRASHED),
            request_id=request_id,
            method=scope["method"],
            path=scope["path"],
            exc_info=error,
        )
        if isinstance(error, StorageBroken) and self._on_storage_broken is not None:
            self._on_storage_broken(error)


async def _live(receive: Receive, send: Send) -> None:
    """Answer a server that asks whether it may start and stop: what we use is opened elsewhere."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
