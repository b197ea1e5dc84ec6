"""Settings of one HTTP upstream. Each group validates itself; its errors say what to change."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from tidegate.domain.errors import SettingsInvalid
from tidegate.upstreams.header_rules import check_configured

MIB = 2**20
PORTS = {"http": 80, "https": 443}
# Paths that users copy from a curl line. Short names such as /models may be a real prefix.
ENDPOINT_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/v1/models")
URL_EXAMPLE = "write it like http://host:8000 or https://host/prefix/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long to wait, in seconds by the event loop's clock; every one is above zero.

    `first_byte_seconds` starts when the call is given to its connection: a server that does not
    stream sends its first byte when the whole answer is ready.
    `total_seconds` includes everything, also the wait for a free connection.
    `keep_alive_seconds` is how long an idle connection is kept. It is below the 5 seconds after
    which common model servers close, so that few calls meet a connection that is being closed. A
    shorter time in the server's `Keep-Alive: timeout=N` is respected.
    `connection_age_seconds` is how long a connection takes calls; the actual age of each is between
    three quarters of it and all of it. `name_seconds` is how long the addresses of a name are used
    for new connections before the name is resolved again. Both together bound how long a server
    that is no longer behind its name gets calls.
    """

    connect_seconds: float = 10.0
    first_byte_seconds: float = 600.0
    idle_seconds: float = 120.0
    total_seconds: float = 900.0
    keep_alive_seconds: float = 4.0
    connection_age_seconds: float = 300.0
    name_seconds: float = 30.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not (math.isfinite(value) and value > 0):
                raise SettingsInvalid(f"{item.name} must be a number of seconds above zero.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one upstream. A reply exactly at a bound is accepted, a larger one is not.

    `header_bytes_max` counts the status line, the headers and the blank line of one reply;
    `chunk_extension_bytes_max` all bytes of a chunked body beyond what its framing needs: chunk
    extensions, leading zeros of a size, and trailers. Interim (1xx) replies before one reply are
    counted by `interim_replies_max`. Calls beyond `connections_max` wait for a free connection.
    """

    header_bytes_max: int = 64 * 1024
    header_count_max: int = 128
    body_bytes_max: int = 32 * MIB
    chunk_extension_bytes_max: int = 16 * 1024
    interim_replies_max: int = 8
    connections_max: int = 1024
    idle_connections_max: int = 256

    def __post_init__(self) -> None:
        lowest = {"header_bytes_max": 64, "header_count_max": 1, "connections_max": 1}
        for item in fields(self):
            low = lowest.get(item.name, 0)
            if getattr(self, item.name) < low:
                raise SettingsInvalid(f"{item.name} must be a whole number of at least {low}.")


class TlsVersion(StrEnum):
    """A version of TLS."""

    TLS_1_2 = "TLSv1.2"  # Many servers still use it.
    TLS_1_3 = "TLSv1.3"  # The newest.


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Trusted authorities and the client certificate. `ca_file` replaces the system's authorities.

    If a file is replaced while Tidegate runs, new connections use the new one.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    verify: bool = True
    version_min: TlsVersion = TlsVersion.TLS_1_2

    def __post_init__(self) -> None:
        if self.key_file is not None and self.cert_file is None:
            raise SettingsInvalid("tls.key_file is given without tls.cert_file: set both.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """The parts of an upstream's URL."""

    scheme: str
    host: str
    port: int
    prefix: str
    host_header: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySettings:
    """An HTTP proxy that every connection goes through, if `url` is set.

    Proxy variables of the environment are ignored. Calls over TLS go through a tunnel (CONNECT);
    calls without TLS are sent to the proxy.
    """

    url: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.url is None:
            if self.user is not None or self.password is not None:
                raise SettingsInvalid("proxy.user is given without proxy.url: set both.")
            return
        origin = self.origin
        if origin.scheme != "http" or origin.prefix:
            raise SettingsInvalid(
                "proxy.url must name a proxy that is reached in the clear, without a path: write "
                "it like http://proxy:3128."
            )
        if self.password is not None and self.user is None:
            raise SettingsInvalid("proxy.password is given without proxy.user: set both.")
        for value in (self.user or "", self.password or ""):
            if not value.isprintable():
                raise SettingsInvalid(
                    "proxy.user or proxy.password holds a line break or a control character: check "
                    "how it was copied."
                )
        if ":" in (self.user or ""):
            raise SettingsInvalid("proxy.user can't hold a colon: it ends there for the proxy.")

    @property
    def origin(self) -> "Origin":
        """Return where the proxy listens; there must be one."""
        assert self.url is not None, "no proxy is set"
        try:
            return origin_of(self.url)
        except SettingsInvalid as exc:
            raise SettingsInvalid(
                "proxy.url can't be used: write it like http://proxy:3128, and set proxy.user and "
                "proxy.password for a proxy that asks for them."
            ) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpSettings:
    """One HTTP upstream.

    `url` may end in `/v1` or not: the calls' paths begin with `/v1/` and it is not doubled.
    `headers` are sent with every call; `api_key` as a bearer token.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    tls: TlsSettings = field(default_factory=TlsSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)

    def __post_init__(self) -> None:
        origin_of(self.url)
        check_configured(self.headers, self.api_key)

    @property
    def origin(self) -> Origin:
        """Return the parts of the URL."""
        return origin_of(self.url)

    @property
    def proxied_by(self) -> ProxySettings | None:
        """Return the proxy that connections go through, if there is one."""
        return self.proxy if self.proxy.url is not None else None


def origin_of(url: str) -> Origin:
    """Parse a base URL.

    Raises:
        SettingsInvalid: it is not the URL of an HTTP server.
    """
    if not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        raise SettingsInvalid(
            "The URL of the upstream has a blank, a control character or a letter outside ASCII: "
            f"{URL_EXAMPLE}."
        )
    parts, port = _split(url)
    if parts.scheme not in PORTS:
        raise SettingsInvalid(
            f"The URL of the upstream must begin with http or https: {URL_EXAMPLE}."
        )
    if parts.username is not None or parts.password is not None:
        raise SettingsInvalid(
            "The URL of the upstream holds a user or password: set api_key or headers instead."
        )
    if not parts.hostname:
        raise SettingsInvalid(f"The URL of the upstream names no host: {URL_EXAMPLE}.")
    if "?" in url or "#" in url:
        raise SettingsInvalid(
            f"The URL of the upstream holds a query or a fragment: {URL_EXAMPLE}."
        )
    _refuse_endpoint(url)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = PORTS[parts.scheme]
    return Origin(
        scheme=parts.scheme,
        host=parts.hostname,
        port=default if port is None else port,
        prefix=parts.path.rstrip("/").removesuffix("/v1"),
        host_header=host if port in {None, default} else f"{host}:{port}",
    )


def _refuse_endpoint(url: str) -> None:
    base = url.rstrip("/")
    for path in ENDPOINT_PATHS:
        if base.endswith(path):
            right = base.removesuffix(path.removeprefix("/v1"))
            raise SettingsInvalid(
                f"The URL of the upstream must stop before the endpoint '{path}': write {right}."
            )


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as exc:
        raise SettingsInvalid(f"The URL of the upstream can't be read: {URL_EXAMPLE}.") from exc
    if port == 0:
        raise SettingsInvalid(f"The URL of the upstream names port 0: {URL_EXAMPLE}.")
    return parts, port
