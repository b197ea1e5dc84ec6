"""Who may come in, and how much a request may weigh."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from tidegate.application.settings import Settings as DeskSettings
from tidegate.domain.errors import SettingsInvalid

_DIGEST = re.compile(r"[0-9a-f]{64}")
_TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on connections and requests. Sizes are in bytes.

    Past `connections_max` open connections, a new one is answered with 503 and closed.
    `header_bytes_max` counts names and values of all headers. A client that sends nothing for
    `body_idle_seconds` in the middle of a body is given up. So is one that we waited for so long in
    all, and for one second more for each `body_bytes_per_second_min` bytes that came.
    """

    connections_max: int = 512
    header_bytes_max: int = 32_768
    headers_max: int = 100
    body_bytes_max: int = 2**20
    body_idle_seconds: float = 60.0
    body_bytes_per_second_min: int = 500
    form_parts_max: int = 64
    form_field_bytes_max: int = 65_536
    form_part_headers_max: int = 8
    form_part_header_bytes_max: int = 4_096

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if getattr(self, name) <= 0:
                raise SettingsInvalid(f"api.limits.{name} must be above 0.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of the public API.

    `keys` maps the SHA-256 of an API key, in hexadecimal, to the tenant whose key it is. Without
    any, everybody may come in, as the tenant `default`, but no web page of another site; `host` is
    the name that requests may then ask for besides loopback, and with `any_host` any will do.
    """

    keys: Mapping[str, str] = field(default_factory=dict, repr=False)
    limits: Limits = field(default_factory=Limits)
    host: str = "127.0.0.1"
    any_host: bool = False
    batch_api: DeskSettings = field(default_factory=DeskSettings)

    def __post_init__(self) -> None:
        for digest, tenant in self.keys.items():
            if not _DIGEST.fullmatch(digest):
                raise SettingsInvalid(
                    "keys must be given as the SHA-256 of each, 64 lower-case hexadecimal "
                    "digits; `printf %s KEY | sha256sum` prints it."
                )
            if not _TENANT.fullmatch(tenant):
                raise SettingsInvalid(
                    f"server.keys names the tenant '{tenant}': use 1 to 64 of A-Z a-z 0-9 . _ -"
                )
