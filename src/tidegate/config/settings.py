"""The tree of all settings. Rooms declare their own groups; here they are put together."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from tidegate.api.settings import Limits as ApiLimits, Settings as ApiSettings
from tidegate.application.settings import Settings as DeskSettings
from tidegate.collector.settings import Settings as CollectorSettings
from tidegate.config.keys import numbered, tenants_of
from tidegate.config.kinds import FILESYSTEM, MEMORY, SQLITE, find_entry_point
from tidegate.domain.errors import SettingsInvalid
from tidegate.endpoints.endpoint import BackoffSettings
from tidegate.endpoints.limiters.aimd import AimdSettings
from tidegate.http_server.limits import ServerTimeouts
from tidegate.processor.settings import (
    SANDBOX_MEMORY_BYTES_MIN,
    SANDBOX_MEMORY_FOR_EACH_BYTE,
    Settings as ProcessorSettings,
)
from tidegate.telemetry.logs import LogFormat
from tidegate.upstreams.settings import HttpSettings, Limits, ProxySettings, Timeouts, TlsSettings

PORT_MAX = 65_535
PROCESSORS_MAX = 64
LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamSettings:
    """One OpenAI-compatible model server, or a proxy in front of several.

    Give its key once: as text, as a file that holds it, or as the name of a variable.
    """

    url: str
    api_key: str | None = field(default=None, repr=False)
    api_key_file: Path | None = None
    api_key_env: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeouts: Timeouts = field(default_factory=Timeouts)
    limits: Limits = field(default_factory=Limits)
    tls: TlsSettings = field(default_factory=TlsSettings)
    proxy: ProxySettings = field(default_factory=ProxySettings)
    concurrency: AimdSettings = field(default_factory=AimdSettings)
    backoff: BackoffSettings = field(default_factory=BackoffSettings)

    def __post_init__(self) -> None:
        given = [self.api_key, self.api_key_file, self.api_key_env]
        if sum(item is not None for item in given) > 1:
            raise SettingsInvalid(
                "A model server takes one of api_key, api_key_file and api_key_env, not several."
            )
        self.http()

    def http(self) -> HttpSettings:
        """Return what the client of this server needs to know.

        Raises:
            SettingsInvalid: the URL, a header or the key can't be used.
        """
        return HttpSettings(
            url=self.url,
            api_key=self.api_key,
            headers=self.headers,
            timeouts=self.timeouts,
            limits=self.limits,
            tls=self.tls,
            proxy=self.proxy,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The address of the API, and who may use it.

    Each of `keys`, and each line of `keys_file`, is a key, or a key and its tenant with a blank
    between them. Without a tenant the key is for the tenant `default`. Blank lines of the file,
    and those that begin with `#`, are skipped.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    observability_port: int = 8081
    allow_open: bool = False
    keys: tuple[str, ...] = field(default=(), repr=False)
    keys_file: Path | None = None
    timeouts: ServerTimeouts = field(default_factory=ServerTimeouts)

    def __post_init__(self) -> None:
        for name, port in (("port", self.port), ("observability_port", self.observability_port)):
            if not 0 <= port <= PORT_MAX:
                raise SettingsInvalid(f"server.{name} must be from 0 (any free one) to {PORT_MAX}.")
        if self.port == self.observability_port != 0:
            raise SettingsInvalid("server.port and server.observability_port must differ.")
        self.tenants()

    def tenants(self) -> dict[str, str]:
        """Return the tenant of each key, by the SHA-256 of the key.

        Raises:
            SettingsInvalid: a key or its tenant can't be used, or a key is given twice.
        """
        return tenants_of(numbered(self.keys))


@dataclass(frozen=True, slots=True, kw_only=True)
class Api:
    """The limits of requests."""

    limits: ApiLimits = field(default_factory=ApiLimits)


class LogLevel(StrEnum):
    """How much is logged."""

    DEBUG = "debug"  # Everything.
    INFO = "info"  # What an operator should read.
    WARNING = "warning"  # What may need attention.
    ERROR = "error"  # What needs one.


@dataclass(frozen=True, slots=True, kw_only=True)
class Logs:
    """How the process logs to standard error."""

    level: LogLevel = LogLevel.INFO
    format: LogFormat = LogFormat.CONSOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendSettings:
    """Which back-end of a family is used.

    `options` are the settings of a back-end from another package, passed to it unread.
    """

    kind: str
    options: Mapping[str, object] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreSettings(BackendSettings):
    """The back-end of the ledger."""

    kind: str = SQLITE


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobsSettings(BackendSettings):
    """The back-end of the bytes of files."""

    kind: str = FILESYSTEM


@dataclass(frozen=True, slots=True, kw_only=True)
class PubSubSettings(BackendSettings):
    """The back-end of wake-ups between processes."""

    kind: str = MEMORY


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be set."""

    data_dir: Path = Path("tidegate-data")
    processors: int = 1
    server: Server = field(default_factory=Server)
    upstream: UpstreamSettings | None = None
    upstreams: Mapping[str, UpstreamSettings] = field(default_factory=dict)
    store: StoreSettings = field(default_factory=StoreSettings)
    blobs: BlobsSettings = field(default_factory=BlobsSettings)
    pubsub: PubSubSettings = field(default_factory=PubSubSettings)
    api: Api = field(default_factory=Api)
    batch_api: DeskSettings = field(default_factory=DeskSettings)
    processor: ProcessorSettings = field(default_factory=ProcessorSettings)
    collector: CollectorSettings = field(default_factory=CollectorSettings)
    logs: Logs = field(default_factory=Logs)

    def api_settings(self) -> ApiSettings:
        """Return what the API needs to know.

        Raises:
            SettingsInvalid: a tenant has a name that can't be used.
        """
        return ApiSettings(
            keys=self.server.tenants(), limits=self.api.limits, batch_api=self.batch_api
        )

    def all_upstreams(self) -> list[UpstreamSettings]:
        """Return the settings of every model server."""
        return [*self.upstreams.values(), *([self.upstream] if self.upstream else [])]

    def check(self) -> None:
        """Refuse combinations that no group can check by itself.

        Raises:
            SettingsInvalid: two upstreams contradict each other, or the API would be open to all.
        """
        if self.upstream is not None and self.upstreams:
            raise SettingsInvalid(
                "Both upstream and upstreams are set: keep upstream to serve every model by one "
                "URL, or upstreams to give each model its own."
            )
        if not 0 <= self.processors <= PROCESSORS_MAX:
            raise SettingsInvalid(
                f"processors must be from 0 (the API alone) to {PROCESSORS_MAX}, "
                f"not {self.processors}."
            )
        for family, chosen in (
            ("store", self.store),
            ("blobs", self.blobs),
            ("pubsub", self.pubsub),
        ):
            find_entry_point(family, chosen.kind)
        self._check_cells()
        self.api_settings()
        server = self.server
        if not (is_loopback(server.host) or server.keys or server.allow_open):
            raise SettingsInvalid(
                f"server.host {server.host} can be reached by other machines, and no key is set: "
                "set server.keys_file, listen on 127.0.0.1, or pass --allow-open to permit that."
            )

    def require_sharing(self) -> None:
        """Refuse back-ends that no other process can see.

        Raises:
            SettingsInvalid: the ledger or the blobs are kept in memory.
        """
        if MEMORY in {self.store.kind, self.blobs.kind}:
            raise SettingsInvalid(
                "A processor in a process of its own can't see what another process keeps in "
                "memory: set store.kind to sqlite and blobs.kind to filesystem, or use "
                "`tidegate serve` "
                "with processors 1."
            )

    def _check_cells(self) -> None:
        """Refuse a memory limit of child processes that the largest allowed reply would exceed."""
        largest = max((item.limits.body_bytes_max for item in self.all_upstreams()), default=0)
        needed = SANDBOX_MEMORY_BYTES_MIN + SANDBOX_MEMORY_FOR_EACH_BYTE * max(
            largest, self.processor.planning.line_bytes_max
        )
        if self.processor.sandbox.memory_bytes_max < needed:
            raise SettingsInvalid(
                "processor.sandbox.memory_bytes_max is too small for the largest reply "
                "(limits.body_bytes_max) or line (processor.planning.line_bytes_max): "
                f"set it to at least {needed}."
            )

    def require_upstream(self) -> None:
        """Refuse settings without a model server.

        Raises:
            SettingsInvalid: there is none.
        """
        if self.upstream is None and not self.upstreams:
            raise SettingsInvalid(
                "No model server is configured: set upstream.url (it serves every model) or "
                "upstreams (one for each model), for example --upstream http://127.0.0.1:8001."
            )


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address."""
    if host in LOOPBACK_NAMES:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
