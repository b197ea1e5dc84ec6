"""Refuse requests whose head is too large, ambiguous, or announces a body we can't read."""

from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate.api.body import check_encoding
from tidegate.api.errors import HeadersTooLarge
from tidegate.api.settings import Limits
from tidegate.domain.errors import Refused

# Of these a second one makes the request ambiguous: what stands in front of us may have judged by
# the one, and we would act on the other.
SINGLE_HEADERS = {
    b"host": "Host",
    b"authorization": "Authorization",
    b"idempotency-key": "Idempotency-Key",
    b"content-type": "Content-Type",
}


class HeaderLimits:
    """Checks the head of each request before anything acts on it."""

    def __init__(self, app: ASGIApp, *, limits: Limits) -> None:
        self._app = app
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request on.

        Raises:
            HeadersTooLarge: a bound on the headers is passed.
            Refused: the head is ambiguous.
        """
        headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self._check_size(headers)
        names = [name.lower() for name, _ in headers]
        for single, shown in SINGLE_HEADERS.items():
            if names.count(single) > 1:
                raise Refused(f"The request has two {shown} headers; send one.")
        for name, value in headers:
            if name.lower() == b"content-encoding":
                check_encoding(value.decode("latin-1"))
        await self._app(scope, receive, send)

    def _check_size(self, headers: list[tuple[bytes, bytes]]) -> None:
        limits = self._limits
        if len(headers) > limits.headers_max:
            raise HeadersTooLarge(
                f"The request has more than {limits.headers_max} headers; send fewer."
            )
        if sum(len(name) + len(value) for name, value in headers) > limits.header_bytes_max:
            raise HeadersTooLarge(
                f"The headers of the request are larger than {limits.header_bytes_max} bytes."
            )
