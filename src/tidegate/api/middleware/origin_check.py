"""Without keys, refuse requests from foreign web pages: a browser on this machine can send them."""

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate.api.errors import ForeignPage


class OriginCheck:
    """Refuses what a foreign web page may have sent.

    Args:
        app: what answers.
        host: the address that the API listens on; its name may be asked for, as may loopback.
        any_host: whether other names may be asked for too, as the API is open to a network.
    """

    def __init__(self, app: ASGIApp, *, host: str, any_host: bool) -> None:
        self._app = app
        self._host = host.lower()
        self._any_host = any_host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let the request on.

        Raises:
            ForeignPage: its Host, Origin or Sec-Fetch-Site is that of somebody else's page.
        """
        headers = Headers(scope=scope)
        # HTTP/1.0 may leave the header out; no browser does.
        asked = _name(f"//{headers['host']}") if "host" in headers else self._host
        if not (self._any_host or self._is_ours(asked)):
            raise ForeignPage(
                "The Host header names neither this machine nor server.host; ask for that name, or "
                "set server.keys_file to let any name in."
            )
        for origin in headers.getlist("origin"):
            name = _name(origin)
            if not (self._is_ours(name) or (self._any_host and name and name == asked)):
                raise _foreign()
        if headers.get("sec-fetch-site", "").strip().lower() == "cross-site":
            raise _foreign()
        await self._app(scope, receive, send)

    def _is_ours(self, name: str) -> bool:
        if name in {"localhost", self._host}:
            return bool(name)
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return False


def _foreign() -> ForeignPage:
    return ForeignPage(
        "Web pages of other sites may not use this API while it asks for no key; set "
        "server.keys_file to permit them."
    )


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""
