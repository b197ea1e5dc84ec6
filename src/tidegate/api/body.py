"""Read the body of a request, within its bounds."""

import asyncio
from collections.abc import AsyncGenerator

from starlette.types import Message, Receive

from tidegate.api.errors import ClientGone, ClientTooSlow, EncodingUnsupported
from tidegate.api.settings import Limits
from tidegate.domain.errors import TooLarge


async def chunks(
    receive: Receive, *, declared: str | None, bytes_max: int, limits: Limits
) -> AsyncGenerator[bytes, None]:
    """Yield the body piece by piece as it arrives.

    Args:
        receive: the server's end of the request.
        declared: the Content-Length header; one above the bound is refused before a byte is read.
        bytes_max: how long the body may be.
        limits: how long the client may pause, and how slowly it may send.

    Raises:
        TooLarge: the body is longer than `bytes_max`.
        ClientTooSlow: nothing came for `limits.body_idle_seconds`, or far too little in all.
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
    """How fast a client sends. Only the time that we wait for it counts."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._waited = 0.0
        self.bytes = 0

    async def wait(self, receive: Receive) -> Message:
        """Return what comes next, or raise ClientTooSlow."""
        seconds_max = self._limits.body_idle_seconds
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            async with asyncio.timeout(seconds_max):
                message = await receive()
        except TimeoutError as exc:
            raise ClientTooSlow(
                f"The body stopped coming for {seconds_max:g} s; send the request again."
            ) from exc
        self._waited += clock() - began
        return message

    def check(self) -> None:
        """Raise ClientTooSlow where too little came in all."""
        rate = self._limits.body_bytes_per_second_min
        if self._waited > self._limits.body_idle_seconds + self.bytes / rate:
            raise ClientTooSlow(
                f"The body comes more slowly than {rate} bytes a second; send the request again "
                "over a faster connection."
            )


async def read_all(
    receive: Receive, *, declared: str | None, bytes_max: int, limits: Limits
) -> bytes:
    """Return the whole of a small body; raises as `chunks` does."""
    pieces = chunks(receive, declared=declared, bytes_max=bytes_max, limits=limits)
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
