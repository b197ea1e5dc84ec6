"""One exchange over ASGI: read the request, let time pass, send the answer."""

import asyncio
import json
from collections.abc import Iterator

from starlette.types import Message, Receive, Send

BODY_BYTES_MAX = 16 << 20
JSON = b"application/json"
_EVENTS = b"text/event-stream; charset=utf-8"


class Answered(Exception):
    """The request has come to an answer that is not the usual one."""

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = json.dumps(
            {"error": {"message": message, "type": kind, "param": param, "code": status}}
        ).encode()
        self.extra: list[tuple[bytes, bytes]] = []


class Gone(Exception):
    """Whoever asked has hung up."""


async def read(receive: Receive) -> bytes:
    """Return the request's body.

    Raises:
        Answered: it is too large.
        Gone: it ended early.
    """
    message = await receive()
    if message["type"] == "http.request" and not message.get("more_body", False):
        body: bytes = message.get("body", b"")
        _check_size(body)
        return body
    pieces = bytearray()
    while message["type"] == "http.request":
        pieces += message.get("body", b"")
        _check_size(pieces)
        if not message.get("more_body", False):
            return bytes(pieces)
        message = await receive()
    raise Gone


def _check_size(data: bytes | bytearray) -> None:
    if len(data) > BODY_BYTES_MAX:
        message = f"The body has more than {BODY_BYTES_MAX} bytes."
        raise Answered(413, message, "RequestEntityTooLarge")


async def rest(seconds: float, receive: Receive) -> None:
    """Let time pass.

    Raises:
        Gone: whoever asked hung up meanwhile, so the work ends at once.
    """
    if seconds <= 0:
        return
    try:
        async with asyncio.timeout(seconds):
            await receive()
            raise Gone
    except TimeoutError:
        return


async def send_whole(
    send: Send,
    status: int,
    body: bytes,
    *,
    kind: bytes = JSON,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    """Send a whole answer."""
    headers = [
        (b"content-type", kind),
        (b"content-length", b"%d" % len(body)),
        *(extra or ()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_half(send: Send, body: bytes) -> None:
    """Promise the whole body and send half of it; the server then drops the connection."""
    headers = [(b"content-type", JSON), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    half: Message = {"type": "http.response.body", "body": body[: len(body) // 2]}
    await send({**half, "more_body": True})


async def send_events(
    send: Send, receive: Receive, events: Iterator[bytes], token_seconds: float
) -> None:
    """Send an answer event by event, so many seconds before each."""
    headers = [(b"content-type", _EVENTS), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    for event in events:
        await rest(token_seconds, receive)
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
