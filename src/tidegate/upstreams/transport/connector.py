"""Opens connections to one upstream: resolves its name, connects, and sets up proxy and TLS."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import TypeVar, cast

from tidegate.domain.errors import ConnectFailed, TimedOut
from tidegate.upstreams.settings import HttpSettings, Origin
from tidegate.upstreams.transport.dns import AddressCache, Resolve
from tidegate.upstreams.transport.happy_eyeballs import dial
from tidegate.upstreams.transport.proxy_tunnel import open_tunnel
from tidegate.upstreams.transport.tls import TlsContextCache, reason

# The ages of connections differ by this part of the longest; successive ages differ widely.
AGE_SPREAD = 0.25
GOLDEN_RATIO = 0.6180339887498949

P = TypeVar("P")  # It has the methods of an `asyncio.Protocol`.


class Connector:
    """Opens connections to one upstream."""

    def __init__(self, settings: HttpSettings, resolve: Resolve) -> None:
        """Take the settings; read the files of `settings.tls`.

        Raises:
            SettingsInvalid: a file of `settings.tls` can't be used.
        """
        self._settings = settings
        self._origin = settings.origin
        peer = self._origin if settings.proxied_by is None else settings.proxied_by.origin
        self._peer = peer
        self._addresses = AddressCache(
            peer.host, peer.port, fresh_seconds=settings.timeouts.name_seconds, resolve=resolve
        )
        secure = self._origin.scheme == "https"
        self._tls = TlsContextCache(settings.tls) if secure else None
        self._opened = 0

    async def open(self, make: Callable[[], P], total_due: float) -> P:
        """Open one connection.

        Args:
            make: returns its protocol.
            total_due: the loop's time at which to give up, unless `connect_seconds` end earlier.

        Raises:
            ConnectFailed: it can't be opened.
            TimedOut: it took too long.
        """
        connect_due = asyncio.get_running_loop().time() + self._settings.timeouts.connect_seconds
        scope = asyncio.timeout_at(min(connect_due, total_due))
        try:
            async with scope:
                return await self._connect(make)
        except (OSError, UnicodeError) as exc:
            # The kernel's own time-out is a TimeoutError too, but it is none of our limits.
            if isinstance(exc, TimeoutError) and scope.expired():
                phase = "total" if total_due < connect_due else "connect"
                raise TimedOut(
                    f"No connection to {self._origin.host_header} within the limit "
                    f"({phase}_seconds).",
                    phase=phase,
                ) from exc
            raise self._failed(exc) from exc

    def next_age(self) -> float:
        """Return the age limit of the next connection in seconds; few connections end together."""
        self._opened += 1
        spread = (self._opened * GOLDEN_RATIO) % 1.0
        return self._settings.timeouts.connection_age_seconds * (1.0 - AGE_SPREAD * spread)

    async def _connect(self, make: Callable[[], P]) -> P:
        context = await self._tls.current() if self._tls is not None else None
        sock = await dial(self._addresses)
        made = make()
        protocol = cast(asyncio.Protocol, made)
        try:
            # Calls without TLS are sent to the proxy and need no tunnel.
            if self._settings.proxied_by is not None and context is not None:
                await open_tunnel(sock, self._settings.proxied_by, self._origin)
            await asyncio.get_running_loop().create_connection(
                lambda: protocol,
                sock=sock,
                ssl=context,
                server_hostname=None if context is None else self._origin.host,
                ssl_handshake_timeout=None
                if context is None
                else self._settings.timeouts.connect_seconds,
            )
        except BaseException:
            sock.close()
            raise
        return made

    def _failed(self, exc: OSError | UnicodeError) -> ConnectFailed:
        text = _why(exc, self._peer, self._origin)
        trouble = self._tls.trouble if self._tls is not None else None
        return ConnectFailed(text if trouble is None else f"{text} {trouble}")


def _why(exc: OSError | UnicodeError, peer: Origin, origin: Origin) -> str:
    """Return why the connection failed, and what to change."""
    url, where, refused = "the URL", origin.host_header, "check that the model server runs there"
    if peer is not origin:
        url, where, refused = "proxy.url", peer.host_header, "check proxy.url"
    match exc:
        case ssl.SSLCertVerificationError():
            text = (
                f"The certificate of {origin.host_header} is not trusted ({reason(exc)}): set "
                "tls.ca_file to the authority that signed it."
            )
        case ssl.SSLError():
            text = (
                f"TLS with {origin.host_header} failed ({reason(exc)}): check the scheme and port "
                "of the URL, tls.version_min, and tls.cert_file if the server asks for a "
                "certificate."
            )
        case socket.gaierror() | UnicodeError():
            text = f"The name of {where} can't be resolved: check {url}."
        case ConnectionRefusedError():
            text = f"{where} refuses connections: {refused}."
        case _:
            tls = ", tls.version_min, and tls.cert_file if the server asks for a certificate"
            check = f"{url} and the network{tls if origin.scheme == 'https' else ''}"
            text = f"No connection to {where} ({reason(exc)}): check {check}."
    return text
