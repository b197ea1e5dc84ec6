"""Read the body of a request within limits of size and time."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import Message, Receive

from tidegate.api.errors import ClientGone, ClientTooSlow, EncodingUnsupported
from tidegate.api.settings import Limits
from tidegate.domain.errors import TooLarge


async def read_chunks(
    receive: Receive, *, declared: str | None, bytes_max: int, limits: Limits
) -> AsyncGenerator[bytes, None]:
    """Yield the pieces of the body as they arrive.

    Args:
        receive: the ASGI function that returns the next part of the request.
        declared: the Content-Length header; if it exceeds `bytes_max`, nothing is read.
        bytes_max: the largest length of the body.
        limits: the longest pause of the client and its lowest rate.

    Raises:
        TooLarge: the body is longer than `bytes_max`.
        ClientTooSlow: nothing arrived for `limits.body_idle_seconds`, or the rate is too low.
        ClientGone: the client closed the connection before the end.
    """
    if declared is not None and declared.isdecimal() and _exceeds(declared, bytes_max):
        raise _too_large(bytes_max)
    pace = _Pace(limits)
    more = True
    while more:
        message = await pace.wait(receive)
        if message["type"] == "http.disconnect":
            raise ClientGone
        data: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        pace.bytes += len(data)
        if pace.bytes > bytes_max:
            raise _too_large(bytes_max)
        if more:
            pace.check()
        if data:
            yield data


class _Pace:
    """Measures how fast a client sends. Only the time spent waiting for it counts."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waited = 0.0
        self.bytes = 0

    async def wait(self, receive: Receive) -> Message:
        """Return the next message, or raise ClientTooSlow."""
        seconds_max = self._limits.body_idle_seconds
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(seconds_max):
                message = await receive()
        except TimeoutError as exc:
            raise ClientTooSlow(
                f"The body stopped arriving for {seconds_max:g} s; send the request again."
            ) from exc
        self._waited += clock() - began
        return message

    def check(self) -> None:
        """Raise ClientTooSlow if the rate of the whole body so far is too low."""
        rate = self._limits.body_bytes_per_second_min
        if self._waited > self._limits.body_idle_seconds + self.bytes / rate:
            raise ClientTooSlow(
                f"The body arrives more slowly than {rate} bytes a second; send the request again "
                "over a faster connection."
            )


async def read_all(
    receive: Receive, *, declared: str | None, bytes_max: int, limits: Limits
) -> bytes:
    """Return the whole of a small body; raise as `read_chunks` does."""
    pieces = read_chunks(receive, declared=declared, bytes_max=bytes_max, limits=limits)
    return b"".join([piece async for piece in pieces])


async def wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has closed the connection; ignore what it still sends."""
    while (await receive())["type"] != "http.disconnect":
        pass


def check_encoding(encoding: str | None) -> None:
    """Raise EncodingUnsupported if the body is compressed."""
    if encoding is not None and encoding.strip().lower() not in {"", "identity"}:
        raise EncodingUnsupported(
            "A body with a Content-Encoding is not accepted; send it uncompressed."
        )


def _exceeds(digits: str, bytes_max: int) -> bool:
    # Thousands of digits would make int() raise.
    return len(digits) > len(str(bytes_max)) + 10 or int(digits) > bytes_max


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"The body of the request is larger than {bytes_max} bytes; send less.")
