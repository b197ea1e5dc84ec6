"""A reply, and how it goes out."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TypeVar

from starlette.types import Receive, Scope, Send

from tidegate.api.body import wait_for_disconnect
from tidegate.wire.objects import encode_page

JSON = "application/json"
SLICE_ITEMS = 250  # Encoding this many objects keeps the event loop for about a millisecond.

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A whole reply. With `pieces`, these are its body and `length` is their sum in bytes."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    pieces: AsyncGenerator[bytes, None] | None = None
    length: int | None = None


def json_reply(
    body: bytes, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Reply:
    """Return a reply with a JSON body."""
    return Reply(status=status, body=body, headers={"content-type": JSON, **(headers or {})})


async def list_reply(
    items: Sequence[T],
    encode: Callable[[T], bytes],
    *,
    identify: Callable[[T], str],
    has_more: bool,
) -> Reply:
    """Return a page, encoded in slices so that a long one does not hold up other requests."""
    encoded: list[bytes] = []
    for start in range(0, len(items), SLICE_ITEMS):
        encoded += [encode(item) for item in items[start : start + SLICE_ITEMS]]
        await asyncio.sleep(0)
    body = encode_page(
        encoded,
        first_id=identify(items[0]) if items else None,
        last_id=identify(items[-1]) if items else None,
        has_more=has_more,
    )
    return json_reply(body)


async def send_reply(reply: Reply, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a reply; the answer to HEAD has the same headers and no body."""
    headers = dict(reply.headers)
    length = len(reply.body) if reply.length is None else reply.length
    if reply.status != _NOT_MODIFIED:
        headers["content-length"] = str(length)
    bodiless = scope["method"] == "HEAD" or reply.status == _NOT_MODIFIED
    await send({"type": "http.response.start", "status": reply.status, "headers": _encode(headers)})
    if reply.pieces is not None and not bodiless:
        await _send_pieces(reply.pieces, receive, send)
    body = b"" if bodiless or reply.pieces is not None else reply.body
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _send_pieces(pieces: AsyncGenerator[bytes, None], receive: Receive, send: Send) -> None:
    """Send each piece, and stop reading them as soon as the client has gone.

    Servers discard what is sent to a closed connection, so only `receive` reports the end.
    """
    async with aclosing(pieces), asyncio.TaskGroup() as group:
        watch = group.create_task(wait_for_disconnect(receive), name="watch for the client to go")
        async for piece in pieces:
            if watch.done():
                break
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        watch.cancel()


def _encode(headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()]


_NOT_MODIFIED = 304
