"""Read the body of a request, within its bounds."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import Receive

from tidegate.api.errors import ClientGone, ClientTooSlow, EncodingUnsupported
from tidegate.domain.errors import TooLarge


async def chunks(
    receive: Receive, *, declared: str | None, bytes_max: int, idle_seconds: float
) -> AsyncGenerator[bytes, None]:
    """Yield the body piece by piece as it arrives.

    Args:
        receive: the server's end of the request.
        declared: the Content-Length header; one above the bound is refused before a byte is read.
        bytes_max: how long the body may be.
        idle_seconds: how long the client may pause.

    Raises:
        TooLarge: the body is longer than `bytes_max`.
        ClientTooSlow: nothing came for `idle_seconds`.
        ClientGone: the client closed the connection before the end.
    """
    if declared is not None and declared.isdecimal() and _exceeds(declared, bytes_max):
        raise _too_large(bytes_max)
    total = 0
    more = True
    while more:
        try:
            async with asyncio.timeout(idle_seconds):
                message = await receive()
        except TimeoutError as exc:
            raise ClientTooSlow(
                f"The body stopped coming for {idle_seconds:g} s; send the request again."
            ) from exc
        if message["type"] == "http.disconnect":
            raise ClientGone
        data: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        total += len(data)
        if total > bytes_max:
            raise _too_large(bytes_max)
        if data:
            yield data


async def read_all(
    receive: Receive, *, declared: str | None, bytes_max: int, idle_seconds: float
) -> bytes:
    """Return the whole of a small body; raises as `chunks` does."""
    pieces = chunks(receive, declared=declared, bytes_max=bytes_max, idle_seconds=idle_seconds)
    return b"".join([piece async for piece in pieces])


async def gone(receive: Receive) -> None:
    """Return once the client has closed the connection; what it still sends is passed over."""
    while (await receive())["type"] != "http.disconnect":
        pass


def check_encoding(encoding: str | None) -> None:
    """Refuse a compressed body.

    Raises:
        EncodingUnsupported: the Content-Encoding is not `identity`.
    """
    if encoding is not None and encoding.strip().lower() not in {"", "identity"}:
        raise EncodingUnsupported(
            "A body with a Content-Encoding is not accepted; send it uncompressed."
        )


def _exceeds(digits: str, bytes_max: int) -> bool:
    # Thousands of digits would make int() raise.
    return len(digits) > len(str(bytes_max)) + 10 or int(digits) > bytes_max


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body of the request is larger than {bytes_max} bytes; send less.")
