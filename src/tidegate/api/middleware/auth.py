"""Put the principal of each request into its scope."""

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate.access.base import Authenticator

_SCHEME = "bearer"


class Authentication:
    """Asks an authenticator who sends each request, and passes the answer on as `principal`."""

    def __init__(self, app: ASGIApp, *, authenticator: Authenticator) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its principal.

        Raises:
            Unauthenticated: the authenticator refuses it.
        """
        credential = bearer_of(Headers(scope=scope).get("authorization"))
        principal = await self._authenticator.authenticate(credential)
        scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, send)


def bearer_of(header: str | None) -> str | None:
    """Return the bearer token of an Authorization header, or None."""
    scheme, _, token = (header or "").strip().partition(" ")
    return token.strip() or None if scheme.lower() == _SCHEME else None
